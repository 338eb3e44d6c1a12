"""Statistics of the log-mels, which the input norm of every HTS-AT without a checkpoint gets."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from amuse_jax.data.records import RecordReader
from amuse_jax.errors import StageError
from amuse_jax.training import state

ARRAYS = ('mel_norm.mean', 'mel_norm.variance')  # endings of parameter names
VIDEOS = 256  # enough for 64 means and variances


def measure(reader: RecordReader, records: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (dB) and the variance (dB^2) of each mel band.

    They are measured on at most VIDEOS videos, evenly spread over `records`.
    """
    chosen = np.linspace(0, len(records) - 1, min(len(records), VIDEOS)).astype(int)
    count, total, squares = 0, 0.0, 0.0
    for index in chosen:
        record = reader[records[index]]
        log_mel = record['log_mel'][record['audio_mask']].astype(np.float64)
        count += log_mel.shape[0] * log_mel.shape[1]
        total = total + log_mel.sum((0, 1))
        squares = squares + np.square(log_mel).sum((0, 1))
    if not count:
        raise StageError('no train video has sound; pretraining needs some')
    mean = total / count
    return mean, squares / count - mean**2


def insert(arrays: state.Arrays, statistics: tuple[np.ndarray, np.ndarray]) -> state.Arrays:
    """Return the arrays with the input norm of every HTS-AT set to the statistics of the data.

    Args:
      arrays: the model's arrays by name.
      statistics: mean and variance of each mel band, from `measure`.
    """
    endings = dict(zip(ARRAYS, statistics))
    return arrays | {
        name: jnp.broadcast_to(jnp.asarray(value, jnp.float32), arrays[name].shape)
        for name in arrays
        for ending, value in endings.items()
        if name.endswith(ending)
    }
