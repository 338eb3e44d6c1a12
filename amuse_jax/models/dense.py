"""Dense layers, and the product of tokens and a kernel that they and all projections use."""

import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import platform
from amuse_jax.system import mkl

LEAST_FLOPS = 5e7  # of a product that MKL computes; a smaller one is not worth a foreign call
ONES = 8  # equal rows that `sum_rows` computes; XLA would turn a single one into a sum again


class Linear(nnx.Linear):
    """A dense layer: (..., d) -> (..., d'). It takes nnx.Linear's arguments."""

    def __init__(self, width_in: int, width_out: int, **options):
        super().__init__(width_in, width_out, dot_general=_dot_general, **options)


def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return x kernel: (..., d), (d, d') -> (..., d').

    MKL computes it where it is faster than XLA, if one device computes the whole program. XLA's
    partitioner could not divide a foreign call.
    """
    flops = 2 * x.size * kernel.shape[1]
    if (
        flops < LEAST_FLOPS
        or platform.current() != 'cpu'
        or platform.batch_is_sharded()
        or not x.dtype == kernel.dtype == jnp.float32
        or not mkl.is_available()
    ):
        return x @ kernel
    return _by_mkl(x.reshape(-1, len(kernel)), kernel).reshape(*x.shape[:-1], kernel.shape[1])


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Return x + bias: (..., d), (d,) -> (..., d).

    On TPUs the gradient of the bias is a matrix product; see `sum_rows`.
    """
    return _add_bias(x, bias) if platform.current() == 'tpu' else x + bias


@jax.custom_vjp
def _add_bias(x, bias):
    return x + bias


def _add_bias_backward(bias, gradient):
    return gradient, sum_rows(gradient).astype(bias.dtype)


_add_bias.defvjp(lambda x, bias: (x + bias, bias), _add_bias_backward)


def sum_rows(x: jax.Array) -> jax.Array:
    """Sum x over all axes but the last by a matrix product with ones: (..., d) -> (d,) float32.

    XLA adds rows as vectors on TPUs. By libtpu 0.0.42's estimate for a v5e, that takes 0.5 ms more
    for 28,800 rows of 1,024 channels.
    """
    rows = x.reshape(-1, x.shape[-1])
    ones = jnp.ones((ONES, len(rows)), x.dtype)
    return jnp.matmul(ones, rows, preferred_element_type=jnp.float32)[0]


def _dot_general(x, kernel, dimension_numbers, precision=None, out_sharding=None):
    """Compute the product of nnx.Linear, whose arguments are always these."""
    return matmul(x, kernel)


@jax.custom_vjp
def _by_mkl(x, kernel):
    return mkl.matmul(x, kernel)


def _forward(x, kernel):
    """Keep only what the gradients that are asked for need: a frozen kernel has none."""
    residuals = x.value if kernel.perturbed else None, kernel.value if x.perturbed else None
    return mkl.matmul(x.value, kernel.value), residuals


def _backward(residuals, gradient):
    x, kernel = residuals
    if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
        return None, None
    d_x = None if kernel is None else mkl.matmul(gradient, kernel, transpose_right=True)
    d_kernel = None if x is None else mkl.matmul(x, gradient, transpose_left=True)
    return d_x, d_kernel


_by_mkl.defvjp(_forward, _backward, symbolic_zeros=True)
