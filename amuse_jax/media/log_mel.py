"""HTS-AT's front end in JAX: log-mel spectra in dB from a waveform.

Equal to torchlibrosa's `Spectrogram` and `LogmelFilterBank` at HTS-AT's settings (Chen et al. 2022,
its released configuration): centred frames under a periodic Hann window of 1024 samples, with
reflected ends; the power spectrum; 64 mel bands after Slaney, each of area 1; 10 log10 with a floor
of 1e-10. The transform is our own because librosa's runs on the CPU only, one sound at a time.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

FLOOR_DB = -100.0


@dataclasses.dataclass(frozen=True)
class LogMel:
    """The front end for sounds of a fixed number of segments.

    Each segment is transformed by itself.

    Attributes:
      sample_rate: sample rate of the sound, in Hz.
      window: length of the window and of the Fourier transform, in samples.
      hop: distance between the middles of two frames, in samples.
      mels: number of mel bands.
      low_hz, high_hz: the lower edge of the lowest and the upper edge of the highest band.
      segments: number of segments, T.
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
        """Build the front end from the sections `audio` and `data` of the whole config."""
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
        """Number of frames of a segment, F."""
        return self.segment_samples // self.hop + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a video's log-mel, (T, F, M): segments, frames and mel bands."""
        return self.segments, self.frames, self.mels

    def __call__(self, samples: jax.Array | np.ndarray) -> jax.Array:
        """Transform a sound. The program is compiled once per process.

        Args:
          samples: (segments * segment_samples,) float32; full scale is 1.

        Returns:
          (segments, frames, mels) float32, in dB.

        Raises:
          ValueError: `samples` has another shape.
        """
        expected = self.segments * self.segment_samples
        if samples.shape != (expected,):
            raise ValueError(f'found samples of shape {samples.shape}, expected ({expected},)')
        return _transform(self, samples.reshape(self.segments, -1))


def log_mel(settings: LogMel, samples: jax.Array) -> jax.Array:
    """Transform sounds that are longer than half a window.

    Args:
      settings: the front end; `segments` and `segment_seconds` are not used.
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
    """Return the mel filters: triangles after Slaney, each of area 1.

    They are those of librosa.filters.mel, bit by bit. librosa takes a second to import, which is a
    good part of what `amuse ask` takes.

    Returns:
      (window / 2 + 1, mels) float32.
    """
    bins = np.fft.rfftfreq(settings.window, 1 / settings.sample_rate)
    lowest, highest = _hz_to_mel(np.array([settings.low_hz, settings.high_hz]))
    corners = _mel_to_hz(np.linspace(lowest, highest, settings.mels + 2))
    widths, ramps = np.diff(corners), np.subtract.outer(corners, bins)
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2 / (corners[2:] - corners[:-2]))[:, None]
    return np.ascontiguousarray(filters.T)


# Slaney's mel scale is linear below 1 kHz, at 200 / 3 Hz per mel, and logarithmic above.
_HZ_PER_MEL, _CORNER_HZ, _LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27.0
_CORNER_MEL = _CORNER_HZ / _HZ_PER_MEL


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    above = _CORNER_MEL + np.log(np.maximum(hz, _CORNER_HZ) / _CORNER_HZ) / _LOG_STEP
    return np.where(hz >= _CORNER_HZ, above, hz / _HZ_PER_MEL)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    above = _CORNER_HZ * np.exp(_LOG_STEP * (mel - _CORNER_MEL))
    return np.where(mel >= _CORNER_MEL, above, mel * _HZ_PER_MEL)


def _hann(window: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
