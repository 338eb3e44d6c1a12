"""Reads sound at a given sample rate from video and sound files."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from amuse_jax.media import container

_PADDING_SECONDS = 0.1  # encoders of sound may fill their last packet up with silence
_GAP_SECONDS = 0.05  # shorter gaps in the sound come from an encoder's rounding
# Recordings in floating point may exceed full scale. A sample above this limit is no sound, and the
# power spectrum of much larger ones is infinite in float32.
_LOUDEST = 1e4


def read_audio(path: Path, sample_rate: int, seconds: float) -> tuple[np.ndarray, float]:
    """Read the sound from its beginning, as the mean of its channels.

    Args:
      path: a file in one of container.FORMATS.
      sample_rate: sample rate of the result, in Hz.
      seconds: length of the result. A shorter sound is padded with silence, a longer one is cut.

    Returns:
      Samples (round(seconds * sample_rate),) float32, full scale at 1; and the real length of the
      sound in seconds. If the sound is longer than `seconds`, that length is the one in the file's
      header.

    Raises:
      MediaError: the file is missing, empty, not a media file, without sound or cut off, none of
        its sound can be decoded, or its samples are not finite or far above full scale.
    """

    def read(source: container.MediaStream) -> tuple[np.ndarray, float]:
        samples = np.zeros(round(seconds * sample_rate), np.float32)
        end = 0.0
        for start, rate, mono in _continuous_parts(source, seconds):
            _check_samples(mono)
            end = start + len(mono) / rate
            _copy_into(samples, _resample(mono, rate, sample_rate), round(start * sample_rate))
        if not end:
            raise container.Undecodable('nothing of its sound can be decoded')
        if end < seconds:
            source.check_complete(end)
            return samples, end
        return samples, max(end, source.header_seconds or source.file_seconds)

    return container.read_stream(path, 'sound', read)


def end_seconds(path: Path) -> float:
    """Return the second at which a file's sound ends, by its packets; 0 if it has none."""
    try:
        with container.open_stream(path, 'sound') as source:
            ends = [
                source.to_seconds(packet.pts + (packet.duration or 0))
                for packet in source.packets()
                if packet.pts is not None
            ]
    except container.MediaError:
        return 0.0
    return max(ends, default=0.0) - _PADDING_SECONDS


def _continuous_parts(
    source: container.MediaStream, seconds: float
) -> Iterator[tuple[float, int, np.ndarray]]:
    """Yield the continuous parts of the sound: (start in seconds, sample rate, mono samples).

    A part ends where frames are missing, or where the sample rate or the channels change.
    """
    fifo, start, end, rate = av.AudioFifo(), 0.0, 0.0, 1
    for frame in _audio_frames(source):
        frame_start = end
        if frame.pts is not None:
            frame_start = float(frame.pts * frame.time_base) - source.start_seconds
        if frame_start >= seconds:
            break
        frame.pts = None  # with a pts, the queue requires times that are exact to the sample
        if fifo.samples and abs(frame_start - end) <= _GAP_SECONDS:
            # The queue raises ValueError if the sample rate, the format or the channels differ.
            with contextlib.suppress(ValueError):
                fifo.write(frame)
                end += frame.samples / rate
                continue
        if fifo.samples:
            yield start, rate, _mono(fifo.read())
        fifo, start, rate = av.AudioFifo(), frame_start, frame.sample_rate
        fifo.write(frame)
        end = start + frame.samples / rate
    if fifo.samples:
        yield start, rate, _mono(fifo.read())


def _audio_frames(source: container.MediaStream) -> Iterator[av.AudioFrame]:
    for packet in itertools.chain(source.packets(), [None]):
        yield from source.decode(packet)


def _check_samples(mono: np.ndarray) -> None:
    """Raise MediaError if samples (n,) are no sound."""
    if not np.isfinite(mono).all():
        raise container.MediaError(
            'its sound holds samples that are not finite (NaN, infinite or too large)'
        )
    loudest = float(np.abs(mono).max(initial=0))
    if loudest > _LOUDEST:
        raise container.MediaError(
            f'its sound is too loud to be one ({loudest:.3g} times full scale; expected at most '
            f'{_LOUDEST:g})'
        )


@np.errstate(over='ignore', invalid='ignore')  # _check_samples finds what is not finite
def _mono(frame: av.AudioFrame) -> np.ndarray:
    """Return the mean of the channels as float32, full scale at 1."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == 'u':  # unsigned 8 bits: silence is 128
        return (samples.mean(0, dtype=np.float32) - 128) / 128
    # FFmpeg's own mix to one channel is not used, because it is louder than the mean.
    mono = samples.mean(0, dtype=np.float32)
    return mono / -np.float32(np.iinfo(samples.dtype).min) if samples.dtype.kind == 'i' else mono


def _resample(samples: np.ndarray, rate: int, wanted_rate: int) -> np.ndarray:
    if rate == wanted_rate:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format='fltp', layout='mono')
    frame.sample_rate = rate
    resampler = av.AudioResampler('fltp', 'mono', wanted_rate)
    frames = resampler.resample(frame) + resampler.resample(None)
    return np.concatenate([part.to_ndarray()[0] for part in frames])


def _copy_into(samples: np.ndarray, part: np.ndarray, start: int) -> None:
    """Copy `part` into `samples` at index `start`; cut it where it does not fit."""
    part = part[max(-start, 0) :]
    target = samples[max(start, 0) :][: len(part)]
    target[:] = part[: len(target)]
