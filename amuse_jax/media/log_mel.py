"""HTS-AT's front end in JAX: from sound to log-mel spectra in dB.

Equal to torchlibrosa's `Spectrogram` and `LogmelFilterBank` at HTS-AT's settings (Chen et al. 2022,
its released configuration): a window of 1024 samples (periodic Hann), centred, the ends reflected;
power; 64 mel bands after Slaney, each of area 1; 10 log10 with a floor of 1e-10.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

FLOOR_DB = -100.0

# Slaney's mel scale: linear below 1 kHz, logarithmic above.
_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27


@dataclasses.dataclass(frozen=True)
class LogMel:
    """The front end for sounds of a fixed number of segments; each segment is transformed alone.

    Attributes:
      sample_rate: of the sound, in Hz.
      window: samples under the window, also the length of the Fourier transform.
      hop: samples between the middles of two frames.
      mels: bands.
      low_hz, high_hz: the lower edge of the lowest and the upper edge of the highest band.
      segments: T.
      segment_seconds: length of a segment.
    """

    sample_rate: int
    window: int
    hop: int
    mels: int
    low_hz: float
    high_hz: float
    segments: int
    segment_seconds: float

    @classmethod
    def from_settings(cls, config: ConfigDict) -> 'LogMel':
        """From the sections `audio` and `data` of the whole config."""
        return cls(
            **config.audio,
            segments=config.data.segments,
            segment_seconds=config.data.segment_seconds,
        )

    @property
    def segment_samples(self) -> int:
        return round(self.segment_seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        """F, frames of a segment."""
        return self.segment_samples // self.hop + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, F, M): segments, frames and bands of a video's log-mel."""
        return self.segments, self.frames, self.mels

    def __call__(self, samples: jax.Array | np.ndarray) -> jax.Array:
        """Transforms a sound, compiled once per process.

        Args:
          samples: (segments * segment_samples,) float32, full scale at 1.

        Returns:
          (segments, frames, mels) float32, in dB.

        Raises:
          ValueError: there are more or fewer samples.
        """
        expected = self.segments * self.segment_samples
        if samples.shape != (expected,):
            raise ValueError(f'found samples of shape {samples.shape}, expected ({expected},)')
        return _transform(self, samples.reshape(self.segments, -1))


def log_mel(settings: LogMel, samples: jax.Array) -> jax.Array:
    """Transforms sounds of any length greater than half a window.

    Args:
      settings: of which segments and segment_seconds are not used.
      samples: (..., n) float32.

    Returns:
      (..., n // hop + 1, mels) float32, in dB.
    """
    half = settings.window // 2
    starts = np.arange(samples.shape[-1] // settings.hop + 1) * settings.hop
    padded = jnp.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(half, half)], mode='reflect')
    frames = padded[..., starts[:, None] + np.arange(settings.window)]  # (..., f, window)
    spectrum = jnp.fft.rfft(frames * _hann(settings.window))  # (..., f, window / 2 + 1)
    power = spectrum.real**2 + spectrum.imag**2
    bands = jnp.matmul(power, mel_filters(settings), precision=jax.lax.Precision.HIGHEST)
    return 10 * jnp.log10(jnp.maximum(bands, 10 ** (FLOOR_DB / 10)))  # (..., f, mels)


_transform = jax.jit(log_mel, static_argnums=0)


@functools.lru_cache
def mel_filters(settings: LogMel) -> np.ndarray:
    """Triangles over the frequencies of the transform, equally spaced in mel, each of area 1.

    Returns:
      (window / 2 + 1, mels) float32.
    """
    low, high = _mel_of(np.array([settings.low_hz, settings.high_hz]))
    edges = _hz_of(np.linspace(low, high, settings.mels + 2))  # (mels + 2,)
    hz = np.linspace(0, settings.sample_rate / 2, settings.window // 2 + 1)[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hz - left) / (middle - left), (right - hz) / (right - middle)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (right - left)).astype(np.float32)


def _mel_of(hz: np.ndarray) -> np.ndarray:
    logarithmic = (
        _BREAK_HZ / _HZ_PER_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    )
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, logarithmic)


def _hz_of(mel: np.ndarray) -> np.ndarray:
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_HZ / _HZ_PER_MEL))
    return np.where(mel < _BREAK_HZ / _HZ_PER_MEL, mel * _HZ_PER_MEL, logarithmic)


def _hann(window: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
