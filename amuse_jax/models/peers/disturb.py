"""What the released training of DG-SCT does to its frozen towers, by mistake.

It switches the whole model into training mode, and the frozen towers with it. All of it is off
here unless it is set, and nothing of it happens in evaluation.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from amuse_jax.models.data_norm import EPSILON, DataNorm

TIME_STRIPES = 2, 64  # number of stripes that SpecAugment cuts out, and their largest width
MEL_STRIPES = 2, 8
MIXUP = 0.5  # both parameters of the Beta distribution


@dataclasses.dataclass(frozen=True)
class Disturbances:
    """Switches for the side effects of training.

    Attributes:
      drop_path: stochastic depth of the towers' last blocks; it rises linearly from 0 in the first
        block. The release has 0.1.
      batch_statistics: the spectrograms are normalised by the mean and variance of their batch, not
        of AudioSet. (The release also moves the stored statistics towards them; here they stay.)
      spec_augment: two stripes of time and two of mel bands are set to zero in every spectrogram.
      mixup: every spectrogram is mixed with the one at the mirrored place of the batch, mostly of
        another video, while frames, questions and answers are not mixed.
    """

    drop_path: float = 0.0
    batch_statistics: bool = False
    spec_augment: bool = False
    mixup: bool = False


def normalised(
    norm: DataNorm, log_mel: Array, disturbances: Disturbances, rngs: nnx.Rngs | None
) -> Array:
    """Normalise log-mels by band and disturb them as set: (b, frames, mels) of the same shape.

    Args:
      norm: the tower's norm.
      log_mel: (b, frames, mels) dB.
      disturbances: the switches.
      rngs: random keys; None = evaluation, nothing is disturbed.
    """
    if rngs is None:
        return norm(log_mel)
    x = _by_batch(norm, log_mel) if disturbances.batch_statistics else norm(log_mel)
    if disturbances.spec_augment:
        x = _cut(x, 1, *TIME_STRIPES, rngs)
        x = _cut(x, 2, *MEL_STRIPES, rngs)
    if disturbances.mixup:
        share = jax.random.beta(rngs.dropout(), MIXUP, MIXUP, (len(x), 1, 1))
        x = share * x + (1 - share) * x[::-1]
    return x


def _by_batch(norm: DataNorm, x: Array) -> Array:
    mean, variance = x.mean((0, 1)), x.var((0, 1))
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * norm.scale[...] + norm.bias[...]


def _cut(x: Array, axis: int, stripes: int, width: int, rngs: nnx.Rngs) -> Array:
    """Set stripes of 0 to width - 1 frames or bands to zero, each example its own."""
    size = x.shape[axis]
    place = jnp.arange(size).reshape((-1, 1) if axis == 1 else (1, -1))
    for _ in range(stripes):
        shape = len(x), 1, 1
        length = jax.random.randint(rngs.dropout(), shape, 0, width)
        first = jax.random.randint(rngs.dropout(), shape, 0, size - length)
        x = jnp.where((place >= first) & (place < first + length), 0, x)
    return x
