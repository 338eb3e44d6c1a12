"""The video file of a performance: H.264 and AAC in mp4, plus its stems and boxes."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from amuse_jax.synthetic.picture.picture import Box, Picture, Planes, Pose
from amuse_jax.synthetic.score.score import Score
from amuse_jax.synthetic.sound import sound
from amuse_jax.system.files import write_atomically

SEGMENTS = 10  # segments per video; boxes are computed at the middle of each
EXTRA_BOX_TIMES = 4  # extra random times per video, so that a detector sees more than the middles
SOUND_BITS_PER_SECOND = 64000

# Fast and deterministic. Flat colours and little motion gain nothing from a slower preset.
_X264 = {
    'preset': 'ultrafast',
    'tune': 'animation',
    'crf': '28',
    'threads': '1',
    'x264-params': 'scenecut=0:rc-lookahead=0:sync-lookahead=0:colormatrix=smpte170m',
}
_AAC = {'aac_coder': 'fast', 'aac_tns': '0', 'aac_pns': '0'}


def write(
    score: Score, video_path: Path, stems_path: Path, *, width: int, height: int, fps: int
) -> dict:
    """Render a score to a video and to stems, both written atomically, and return the boxes.

    Args:
      score: the performance to render.
      video_path: the mp4 file to write.
      stems_path: the FLAC file to write, at 32 kHz and 16 bits, with the channels of `sound.play`.
      width: picture width in pixels, even.
      height: picture height in pixels, even.
      fps: frames per second.

    Returns:
      {'seconds': times, 'boxes': for each time a list of (x0, y0, x1, y1, class, index of the
      performer)}. The boxes enclose instruments and players, in shares of width and height. The
      times are the middles of the SEGMENTS segments, followed by EXTRA_BOX_TIMES random times.

    Raises:
      ValueError: the size cannot be painted (see Picture).
    """
    cv2.setNumThreads(1)  # several videos are rendered in parallel
    stems = sound.play(score)
    picture = Picture(score, width, height)
    frames = picture.poses(np.arange(round(score.seconds * fps)) / fps)
    write_atomically(stems_path, lambda beside: sound.write_stems(stems, beside))
    write_atomically(video_path, lambda beside: _encode(picture, frames, stems.sum(0), fps, beside))
    seconds = _box_times(score)
    boxes: list[list[Box]] = [
        picture.boxes(frames[min(int(second * fps + 1e-6), len(frames) - 1)]) for second in seconds
    ]
    return {'seconds': seconds, 'boxes': boxes}


def _box_times(score: Score) -> list[float]:
    middles = (np.arange(SEGMENTS) + 0.5) * score.seconds / SEGMENTS
    others = np.random.default_rng([score.seed, 61]).uniform(0, score.seconds, EXTRA_BOX_TIMES)
    return [round(float(second), 3) for second in (*middles, *np.sort(others))]


def _encode(
    picture: Picture, frames: list[tuple[Pose, ...]], track: np.ndarray, fps: int, path: Path
) -> None:
    with av.open(str(path), 'w', format='mp4', options={'movflags': 'faststart'}) as container:
        video = container.add_stream('libx264', rate=fps, options={**_X264, 'g': str(fps)})
        video.width, video.height, video.pix_fmt = picture.width, picture.height, 'yuv420p'
        video.codec_context.thread_count = 1
        audio = container.add_stream('aac', rate=sound.SAMPLE_RATE, layout='mono', options=_AAC)
        audio.bit_rate = SOUND_BITS_PER_SECOND
        samples = av.AudioFrame.from_ndarray(track[None], format='fltp', layout='mono')
        samples.sample_rate, samples.pts = sound.SAMPLE_RATE, 0
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
        frame = av.VideoFrame(picture.width, picture.height, 'yuv420p')
        planes = _plane_views(frame)
        frame.time_base, painted = Fraction(1, fps), None
        for index, poses in enumerate(frames):
            if poses != painted:  # x264 copies its input, so one frame can be reused
                picture.paint(poses, planes)
                painted = poses
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


def _plane_views(frame: av.VideoFrame) -> Planes:
    """Return the planes of the frame as writable arrays."""
    return tuple(
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    )
