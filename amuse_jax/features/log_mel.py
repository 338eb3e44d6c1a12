"""The log-mels that DG-SCT's HTS-AT takes: one second of each step, repeated to ten.

DG-SCT's loader (Duan et al. 2023) reads ten seconds of sound per video, at 32 kHz, and repeats each
to the 10 seconds that HTS-AT was trained on. How these ten were chosen among 60 was never
published. Here they are the seconds 0, 6, ..., 54, the ones that AVST's loader takes.
"""

import os

import jax
import numpy as np

from amuse_jax.features.catalogue import STEP_SECONDS, STEPS, has_begun
from amuse_jax.media.log_mel import LogMel
from amuse_jax.system import sharded

# HTS-AT's released configuration, for sounds of 10 s.
_REPEATS = 10
FRONT_END = LogMel(
    sample_rate=32000, window=1024, hop=320, mels=64, low_hz=50.0, high_hz=14000.0,
    segments=STEPS, segment_seconds=float(_REPEATS),
)  # fmt: skip


class RepeatedSeconds:
    """The log-mels of ten seconds of a sound, each repeated to ten seconds.

    Attributes:
      sample_rate: sample rate of the sound, in Hz.
    """

    sample_rate = FRONT_END.sample_rate

    def __init__(self):
        # The GPU that this process sees is not needed here, and JAX would take memory of it.
        jax.config.update('jax_platforms', 'cpu')
        os.environ.setdefault('NPROC', str(sharded.cpus_per_worker()))  # XLA's number of threads

    def __call__(self, samples: np.ndarray, seconds: float) -> dict[str, np.ndarray]:
        """Compute the log-mels of a sound.

        Args:
          samples: (60 * 32000,) float32, full scale at 1.
          seconds: length of the sound; samples after it are padding.

        Returns:
          'log_mel_seconds' (STEPS, 1001, 64) float32 in dB; 0 for steps that begin after the end.
        """
        begins = np.arange(STEPS) * STEP_SECONDS
        chosen = samples.reshape(-1, self.sample_rate)[begins]  # (STEPS, samples of a second)
        spectra = np.array(FRONT_END(np.tile(chosen, _REPEATS).reshape(-1)))
        spectra[~has_begun(begins, seconds)] = 0
        return {'log_mel_seconds': spectra}
