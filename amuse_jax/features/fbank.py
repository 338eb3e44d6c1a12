"""Kaldi's log-mel filter banks in NumPy, and the windows of sound that LAVISH takes.

Equal to `torchaudio.compliance.kaldi.fbank` with window_type 'hanning', no dither and its other
defaults: frames of 25 ms every 10 ms at 16 kHz, whole frames only; each without its mean, with a
pre-emphasis of 0.97, under a symmetric Hann window; a Fourier transform of 512; the power spectrum;
triangles on the mel scale 1127 ln(1 + f / 700 Hz) from 20 Hz to 8 kHz; the logarithm with a floor
of float32's epsilon.
"""

import functools

import numpy as np

from amuse_jax.features.catalogue import STEPS

SAMPLE_RATE = 16000  # Hz
FRAME, HOP, FFT = 400, 160, 512  # samples
_PREEMPHASIS = 0.97
_FLOOR = float(np.finfo(np.float32).eps)
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 8000.0

# LAVISH's loader for MUSIC-AVQA: windows of 1.95 s, which start at most 2.05 s before the end, and
# the mean and standard deviation of its filter banks.
WINDOW = 31_200  # samples
_LAST_START = 32_800  # samples before the end
SIDE = 192  # frames, and mel bands
_MEAN, _DEVIATION = -5.385333061218262, 3.5928637981414795


def kaldi(samples: np.ndarray, bands: int) -> np.ndarray:
    """Compute the log-mel filter banks of a sound.

    Args:
      samples: (n,) float at 16 kHz, full scale at 1.
      bands: number of mel bands.

    Returns:
      (frames, bands) float32, natural logarithms; frames = 1 + (n - 400) // 160, none for a sound
      that is shorter than a frame.
    """
    cut = frames(samples)
    cut = cut - cut.mean(-1, keepdims=True)
    before = np.concatenate([cut[:, :1], cut[:, :-1]], axis=-1)
    cut = (cut - _PREEMPHASIS * before) * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(cut, FFT)) ** 2
    energies = power @ mel_filters(bands, _LOWEST_HZ, _HIGHEST_HZ)
    return np.log(np.maximum(energies, _FLOOR)).astype(np.float32)


def frames(samples: np.ndarray) -> np.ndarray:
    """Cut a sound into its whole frames, (frames, FRAME) float64, one every HOP samples."""
    samples = np.asarray(samples, np.float64)
    if len(samples) < FRAME:
        return np.zeros((0, FRAME))
    return np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]


def without_padding(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Return the samples of a sound of that length, at least one."""
    return samples[: max(round(seconds * SAMPLE_RATE), 1)]


@functools.cache
def mel_filters(bands: int, lowest_hz: float, highest_hz: float) -> np.ndarray:
    """Return triangles on the mel scale 1127 ln(1 + f / 700 Hz), each 1 at its middle.

    Args:
      bands: number of triangles.
      lowest_hz: lower corner of the first triangle.
      highest_hz: upper corner of the last triangle.

    Returns:
      (FFT / 2 + 1, bands) float64, for the bins of a transform of FFT samples at 16 kHz.
    """
    bins = _mel(np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE))
    corners = np.linspace(_mel(lowest_hz), _mel(highest_hz), bands + 2)
    rising = (bins[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins[:, None]) / (corners[2:] - corners[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def _mel(hz):
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


class LAVISHWindows:
    """The filter banks of ten windows of a sound, as LAVISH's loader makes and normalises them.

    Attributes:
      sample_rate: sample rate of the sound, in Hz.
    """

    sample_rate = SAMPLE_RATE

    def __call__(self, samples: np.ndarray, seconds: float) -> dict[str, np.ndarray]:
        """Compute the windows of a sound.

        The windows are spread over the sound, so a short sound has overlapping ones. A sound that
        is shorter than a window gives fewer frames; the others are 0, after the normalisation.

        Args:
          samples: (n,) float at 16 kHz, full scale at 1.
          seconds: length of the sound; samples after it are padding.

        Returns:
          'fbank' (STEPS, SIDE, SIDE) float32: steps, frames and mel bands.
        """
        samples = without_padding(samples, seconds).astype(np.float64)
        samples = samples - samples.mean()
        last = max(len(samples) - _LAST_START, 0)
        result = np.zeros((STEPS, SIDE, SIDE), np.float32)
        for step, start in enumerate(np.linspace(0, last, STEPS, dtype=int)):
            found = kaldi(samples[start : start + WINDOW], SIDE)[:SIDE]
            result[step, : len(found)] = (found - _MEAN) / (2 * _DEVIATION)
        return {'fbank': result}
