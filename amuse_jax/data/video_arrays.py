"""The arrays that the model gets from one video: frames, log-mel spectra and their masks.

The stage `prepare` reads the videos of a data set with this, and `ask` reads any other video.
"""

import contextlib
from pathlib import Path

import jax
import numpy as np

from amuse_jax.media import audio, guarded, video
from amuse_jax.media.log_mel import LogMel


def read_video(
    limits: guarded.Limits, picture: Path, sound: Path, image_size: int, log_mel: LogMel
) -> dict[str, np.ndarray | float]:
    """Read the frame at the middle of each segment, and the log-mel of each segment's sound.

    Args:
      limits: limits for reading a file, in another process.
      picture: the file with the frames.
      sound: the file with the sound; usually the same file.
      image_size: S, height and width of the frames in pixels.
      log_mel: the front end, which defines T and the segments' length.

    Returns:
      A dict:
        'frames': (T, S, S, 3) uint8; where the file's sound goes on after the picture, the
          last frame;
        'frame_mask': (T,) bool, False where the video shows nothing, as after its end;
        'shape': height and width of the picture in pixels, as a player displays it;
        'log_mel': (T, F, M) float16 in dB;
        'audio_mask': (T,) bool, True for segments that begin before the sound ends;
        'seconds': length of the sound, in seconds.

    Raises:
      MediaError: a file cannot be used; see `video.read_frames`, `audio.read_audio` and
        `guarded.read`.
    """
    segments, length = log_mel.segments, log_mel.segment_seconds
    frames, frame_mask, shape = guarded.read(
        limits, video.read_segment_frames, picture, segments, length, image_size
    )
    if not frame_mask.any():
        raise video.MediaError(f'it shows nothing in its first {segments * length:g} s')
    try:
        samples, seconds = guarded.read(
            limits, audio.read_audio, sound, log_mel.sample_rate, segments * length
        )
    except video.MediaError as error:
        if sound == picture:
            raise
        raise video.MediaError(f'{error.reason} (the sound of {sound.stem})') from error
    with _on_cpu():
        spectra = np.asarray(log_mel(samples)).astype(np.float16)
    return {
        'frames': frames,
        'frame_mask': frame_mask,
        'shape': shape.tolist(),
        'log_mel': spectra,
        'audio_mask': np.arange(segments) * length < seconds,
        'seconds': float(seconds),
    }


def is_cut(seconds: float, used: float) -> bool:
    """Return whether a sound is longer than the part that is used, by more than a second."""
    return seconds > used + 1.0


def _on_cpu() -> contextlib.AbstractContextManager:
    """Compute on the CPU, so that spectra are the same on every machine.

    If JAX runs without its CPU backend, its default device is used.
    """
    platforms = jax.config.jax_platforms
    if platforms and 'cpu' not in platforms.split(','):
        return contextlib.nullcontext()
    return jax.default_device(jax.local_devices(backend='cpu')[0])
