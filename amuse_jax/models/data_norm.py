"""A normalisation layer with fixed statistics of the training data."""

import jax
import jax.numpy as jnp
from flax import nnx

EPSILON = 1e-5  # as in PyTorch's BatchNorm


class DataNorm(nnx.Module):
    """A batch norm in inference mode: scale (x - mean) / sqrt(variance + epsilon) + bias.

    The mean and variance of each channel are statistics of the training data and are not trained.
    They come from a public checkpoint or are measured once, by the stage pretrain. Before that the
    mean is 0 and the variance 1.
    """

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,)))
        self.bias = nnx.Param(jnp.zeros((width,)))
        self.mean = nnx.BatchStat(jnp.zeros((width,)))
        self.variance = nnx.BatchStat(jnp.ones((width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise x: [..., width] -> float32 of the same shape."""
        rate = self.scale[...] * jax.lax.rsqrt(self.variance[...] + EPSILON)
        return (x.astype(jnp.float32) - self.mean[...]) * rate + self.bias[...]
