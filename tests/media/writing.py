"""Writes small video files for tests."""

import dataclasses
import fractions
from pathlib import Path

import av
import numpy as np
import pytest


@dataclasses.dataclass(frozen=True)
class Sound:
    """A sound of sines with amplitude 0.3; channel k is at 440 + 110 k Hz."""

    seconds: float = 3.0
    codec: str = 'aac'
    sample_rate: int = 32000
    layout: str = 'mono'
    channels: int = 1
    start: float = 0.0
    format: str = 'fltp'

    def samples(self) -> np.ndarray:
        times = np.arange(round(self.seconds * self.sample_rate)) / self.sample_rate
        hz = 440 + 110 * np.arange(self.channels)[:, None]
        return (0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A video of frames with random blocks; the frame's number is the seed."""

    seconds: float = 3.0
    codec: str = 'libx264'
    fps: int = 10
    width: int = 64
    height: int = 48
    pixels: str = 'yuv420p'
    options: tuple[tuple[str, str], ...] = ()
    group: int = 12
    start: float = 0.0
    times: tuple[int, ...] = ()  # start of each frame, in frames; () for a constant rate
    matrix: tuple[int, ...] = ()  # display matrix, 16.16 fixed point

    def frame(self, index: int) -> np.ndarray:
        blocks = np.random.default_rng(index).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        return blocks.repeat(self.height // 6, 0).repeat(self.width // 8, 1)


def write_video(
    path: Path,
    picture: Picture | None = Picture(),  # noqa: B008
    sound: Sound | None = Sound(),  # noqa: B008
    options: dict | None = None,
    frames: np.ndarray | None = None,
) -> Path:
    """Write a video file and return its path; `frames` (n, h, w, 3) replace the picture's own."""
    with av.open(str(path), 'w', options=options or {}) as container:
        streams = []
        if picture:
            streams.append(_add_picture(container, picture, frames))
        if sound:
            streams.append(_add_sound(container, sound))
        for packets in streams:
            for packet in packets:
                container.mux(packet)
    return path


def _add_picture(container, picture: Picture, frames: np.ndarray | None):
    stream = container.add_stream(picture.codec, rate=picture.fps)
    stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, picture.pixels
    stream.options = dict(picture.options)
    stream.codec_context.gop_size = picture.group
    if picture.matrix:
        stream.set_display_matrix(picture.matrix)

    def packets():
        for index in range(round(picture.seconds * picture.fps)):
            pixels = picture.frame(index) if frames is None else frames[index]
            frame = av.VideoFrame.from_ndarray(pixels, 'rgb24')
            frame.time_base = fractions.Fraction(1, picture.fps)
            frame.pts = picture.times[index] if picture.times else index
            frame.pts += round(picture.start * picture.fps)
            yield from stream.encode(frame)
        yield from stream.encode()

    return packets()


def _add_sound(container, sound: Sound):
    stream = container.add_stream(sound.codec, rate=sound.sample_rate)
    stream.layout = sound.layout
    samples = sound.samples()
    if sound.format.startswith('s16'):
        samples = np.round(samples * 32767).astype(np.int16)
    if not sound.format.endswith('p'):
        samples = samples.T.reshape(1, -1)
    size = 1024 * (1 if sound.format.endswith('p') else sound.channels)

    def packets():
        for start in range(0, samples.shape[1], size):
            block = np.ascontiguousarray(samples[:, start : start + size])
            frame = av.AudioFrame.from_ndarray(block, format=sound.format, layout=sound.layout)
            frame.sample_rate = sound.sample_rate
            frame.time_base = fractions.Fraction(1, sound.sample_rate)
            frame.pts = start * 1024 // size + round(sound.start * sound.sample_rate)
            yield from stream.encode(frame)
        yield from stream.encode()

    return packets()


@pytest.fixture
def media():
    """Give access to this module: media.write(path, media.Picture(...), media.Sound(...))."""

    class Media:
        write = staticmethod(write_video)

    Media.Picture, Media.Sound = Picture, Sound
    return Media
