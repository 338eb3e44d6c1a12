"""A norm by statistics of the data set."""

import jax
import jax.numpy as jnp
from flax import nnx

EPSILON = 1e-5  # as in PyTorch's BatchNorm


class DataNorm(nnx.Module):
    """scale (x - mean) / sqrt(variance + epsilon) + bias per channel: a batch norm as used for
    inference.

    The statistics are of the training data, not trained: a public checkpoint brings them, else
    they are measured once. Until then they are mean 0, variance 1.
    """

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,)))
        self.bias = nnx.Param(jnp.zeros((width,)))
        self.mean = nnx.BatchStat(jnp.zeros((width,)))
        self.variance = nnx.BatchStat(jnp.ones((width,)))

    def fit(self, mean: jax.Array, variance: jax.Array):
        """Stores the mean and variance of each channel over the training data, both (width,)."""
        self.mean[...] = jnp.asarray(mean, jnp.float32)
        self.variance[...] = jnp.asarray(variance, jnp.float32)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] -> float32 of the same shape."""
        rate = self.scale[...] * jax.lax.rsqrt(self.variance[...] + EPSILON)
        return (x.astype(jnp.float32) - self.mean[...]) * rate + self.bias[...]
