"""The MLP of a transformer's block with its norm and its residual, as Pallas kernels for TPUs.

`residual_mlp` is one kernel forwards and one backwards. The weights stay on the chip, and the
hidden layer never leaves it: XLA writes it to memory for the gradient, and reads the tokens three
times for the norm. The backward kernel computes the hidden layer again from the tokens, so a
gradient keeps the tokens alone.

The kernels take frozen weights. Where a weight needs a gradient, the backward pass is XLA's.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from amuse_jax.models import platform
from amuse_jax.models.attention.tpu_kernels import matmul
from amuse_jax.models.gelu import HALF_ROOT

ROWS = 512  # tokens per program
CHUNK = 128
MAX_WEIGHT_BYTES = 40 * 2**20  # that stay on the chip
VMEM_BYTES = 80 * 2**20  # of a program; the compilers for v5e, v5p and v6e accept it
NORMAL = float(1 / np.sqrt(2 * np.pi))  # density of the normal distribution at 0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a kernel.

    Attributes:
      tokens: number of tokens.
      width, hidden: channels of a token and of the hidden layer.
      norm_first: whether the norm comes before the MLP; else after it.
      epsilon: number that the norm adds to the variance.
    """

    tokens: int
    width: int
    hidden: int
    norm_first: bool
    epsilon: float

    @property
    def rows(self) -> int:
        """Number of tokens per program. The last program may have fewer."""
        return min(ROWS, -(-self.tokens // 16) * 16)

    @property
    def chunk(self) -> int:
        """Number of hidden channels at a time."""
        chunk = math.gcd(self.hidden, CHUNK)
        return chunk if chunk % 128 == 0 else self.hidden

    @property
    def chunks(self) -> int:
        """Number of chunks of the hidden layer."""
        return self.hidden // self.chunk


def fits(x: Array, hidden: int) -> bool:
    """Return whether the kernels can run here: on a TPU, with unsharded weights that fit."""
    weight_bytes = 2 * x.shape[-1] * hidden * x.dtype.itemsize
    return (
        platform.current() == 'tpu'
        and weight_bytes <= MAX_WEIGHT_BYTES
        and not platform.weights_are_sharded()
    )


def residual_mlp(
    x: Array,
    inner: tuple[Array, Array],
    outer: tuple[Array, Array],
    norm: tuple[Array, Array],
    *,
    norm_first: bool,
    epsilon: float,
) -> Array:
    """Return x + LayerNorm(mlp(x)), or x + mlp(LayerNorm(x)) if `norm_first`.

    The MLP is outer(GELU(inner(x))) with the erf form of GELU. Norm and GELU run in float32, the
    matrix products in the dtype of x with float32 sums.

    Args:
      x: (b, ..., d).
      inner: kernel (d, hidden) and bias (hidden,).
      outer: kernel (hidden, d) and bias (d,).
      norm: scale (d,) and bias (d,).
      norm_first: whether the norm comes before the MLP.
      epsilon: number added to the variance.
    Returns:
      (b, ..., d) in the dtype of x.
    """
    kernels = [kernel.astype(x.dtype) for kernel, _ in (inner, outer)]
    vectors = [vector[None].astype(jnp.float32) for vector in (inner[1], outer[1], *norm)]

    def kernel(x, *weights):
        tokens = math.prod(x.shape[:-1])
        sizes = Sizes(tokens, x.shape[-1], kernels[0].shape[1], norm_first, epsilon)
        return _apply(sizes, x.reshape(tokens, -1), *weights).reshape(x.shape)

    return platform.on_each_device(kernel, 1, 6)(x, *kernels, *vectors)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(sizes: Sizes, x, inner, outer, *vectors):
    return pl.pallas_call(
        functools.partial(_forward, sizes),
        **_arguments(sizes, x, backwards=False),
        name='mlp',
    )(x, inner, outer, *vectors)


def _apply_forward(sizes, *inputs):
    trained = any(each.perturbed for each in inputs[1:])
    inputs = [each.value for each in inputs]
    return _apply(sizes, *inputs), (inputs, () if trained else None)


def _apply_backward(sizes, residuals, gradient):
    (x, inner, outer, *vectors), trained = residuals
    gradient = gradient.astype(x.dtype)
    if trained is not None:
        return jax.vjp(functools.partial(_plain, sizes), x, inner, outer, *vectors)[1](gradient)
    d_x = pl.pallas_call(
        functools.partial(_backward, sizes),
        **_arguments(sizes, x, backwards=True),
        name='mlp_gradient',
    )(x, gradient, inner, outer, *vectors)
    return d_x, *(jnp.zeros_like(each) for each in (inner, outer, *vectors))


_apply.defvjp(_apply_forward, _apply_backward, symbolic_zeros=True)


def _arguments(sizes: Sizes, x: Array, backwards: bool) -> dict:
    """Return the arguments of pallas_call: blocks, scratch memory and costs."""
    rows, width, hidden = sizes.rows, sizes.width, sizes.hidden
    tokens = pl.BlockSpec((rows, width), lambda i: (i, 0))

    def whole(*shape):
        return pl.BlockSpec(shape, lambda i: (0, 0), pipeline_mode=pl.Buffered(1))

    weights = [whole(width, hidden), whole(hidden, width), whole(1, hidden)]
    weights += [whole(1, width)] * 3
    scratch = [
        pltpu.VMEM((2, rows, sizes.chunk), jnp.float32),
        pltpu.VMEM((rows, width), jnp.float32),
    ]
    if backwards:
        scratch.append(pltpu.VMEM((sizes.chunks, rows, sizes.chunk), x.dtype))
    products = (6 if sizes.norm_first else 8) if backwards else 4
    product = sizes.tokens * width * hidden
    return {
        'grid': (pl.cdiv(sizes.tokens, rows),),
        'in_specs': [tokens] * (1 + backwards) + weights,
        'out_specs': tokens,
        'out_shape': jax.ShapeDtypeStruct(x.shape, x.dtype),
        'scratch_shapes': scratch,
        'compiler_params': pltpu.CompilerParams(
            dimension_semantics=('parallel',), vmem_limit_bytes=VMEM_BYTES
        ),
        'cost_estimate': pl.CostEstimate(
            flops=products * product,
            transcendentals=sizes.tokens * hidden,
            bytes_accessed=((2 + backwards) * sizes.tokens + 2 * hidden) * width * x.dtype.itemsize,
        ),
        # Without products that the backward pass computes again.
        'metadata': {'product_flops': str(4 * product)},
    }


def _forward(sizes, x_ref, inner_ref, outer_ref, *refs):
    inner_bias, outer_bias, scale, shift, out_ref, hidden_ref, sum_ref = refs
    x = x_ref[...].astype(jnp.float32)
    y = x
    if sizes.norm_first:
        y = _normalise(sizes, x)[0] * scale[...] + shift[...]
    y = y.astype(x_ref.dtype)
    sum_ref[...] = jnp.zeros_like(sum_ref)

    def multiply(chunk, slot):
        hidden_ref[slot] = matmul(y, _columns(sizes, inner_ref, chunk), 1, 0)

    def combine(chunk, slot):
        hidden = _gelu(hidden_ref[slot] + _columns(sizes, inner_bias, chunk))
        sum_ref[...] += matmul(hidden.astype(y.dtype), _rows(sizes, outer_ref, chunk), 1, 0)

    _for_chunks(sizes, multiply, combine)
    y = sum_ref[...] + outer_bias[...]
    if not sizes.norm_first:
        y = _normalise(sizes, y)[0] * scale[...] + shift[...]
    out_ref[...] = (x + y).astype(out_ref.dtype)


def _backward(sizes, x_ref, gradient_ref, inner_ref, outer_ref, *refs):
    inner_bias, outer_bias, scale, shift, d_x_ref, chunk_ref, sum_ref, hidden_ref = refs
    x, gradient = (ref[...].astype(jnp.float32) for ref in (x_ref, gradient_ref))
    dtype = x_ref.dtype
    y, d_y = x, gradient
    if sizes.norm_first:
        unit, inverse = _normalise(sizes, x)
        y = unit * scale[...] + shift[...]
    y = y.astype(dtype)

    def activate(chunk, _):
        hidden = matmul(y, _columns(sizes, inner_ref, chunk), 1, 0)
        hidden_ref[chunk] = (hidden + _columns(sizes, inner_bias, chunk)).astype(dtype)

    def combine(chunk, _):
        hidden = _gelu(hidden_ref[chunk].astype(jnp.float32)).astype(dtype)
        sum_ref[...] += matmul(hidden, _rows(sizes, outer_ref, chunk), 1, 0)

    if not sizes.norm_first:
        sum_ref[...] = jnp.zeros_like(sum_ref)
        _for_chunks(sizes, activate, combine)
        unit, inverse = _normalise(sizes, sum_ref[...] + outer_bias[...])
        d_y = _norm_gradient(unit, inverse, gradient * scale[...])
    d_y = d_y.astype(dtype)
    sum_ref[...] = jnp.zeros_like(sum_ref)

    def multiply(chunk, slot):
        if sizes.norm_first:
            activate(chunk, slot)
        chunk_ref[slot] = matmul(d_y, _rows(sizes, outer_ref, chunk), 1, 1)

    def differentiate(chunk, slot):
        d_hidden = chunk_ref[slot] * _gelu_gradient(hidden_ref[chunk].astype(jnp.float32))
        columns = _columns(sizes, inner_ref, chunk)
        sum_ref[...] += matmul(d_hidden.astype(dtype), columns, 1, 1)

    _for_chunks(sizes, multiply, differentiate)
    d_x = sum_ref[...]
    if sizes.norm_first:
        d_x = _norm_gradient(unit, inverse, d_x * scale[...])
    d_x_ref[...] = (gradient + d_x).astype(dtype)


def _for_chunks(sizes: Sizes, first, second):
    """Call first(chunk) and then second(chunk) for every chunk of the hidden layer.

    first(chunk + 1) stands directly behind second(chunk), so that the compiler can run its matrix
    products while GELU is computed. Both may use the same scratch memory.
    """
    first(0, 0)
    count = sizes.chunks - 1

    def pair(step, _):
        for slot in (0, 1):
            chunk = 2 * step + slot
            first(chunk + 1, 1 - slot)
            second(chunk, slot)

    jax.lax.fori_loop(0, count // 2, pair, None)
    if count % 2:
        first(count, 1)
        second(count - 1, 0)
    second(count, count % 2)


def _columns(sizes: Sizes, ref, chunk) -> Array:
    return ref[:, pl.ds(pl.multiple_of(chunk * sizes.chunk, sizes.chunk), sizes.chunk)]


def _rows(sizes: Sizes, ref, chunk) -> Array:
    return ref[pl.ds(pl.multiple_of(chunk * sizes.chunk, sizes.chunk), sizes.chunk)]


def _normalise(sizes: Sizes, x: Array) -> tuple[Array, Array]:
    """Return (x - mean) / deviation along the channels, and 1 / deviation."""
    x = x - jnp.mean(x, axis=1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(x * x, axis=1, keepdims=True) + sizes.epsilon)
    return x * inverse, inverse


def _norm_gradient(unit: Array, inverse: Array, gradient: Array) -> Array:
    """Return the gradient of `_normalise`'s input, given that of its first result."""
    along = jnp.mean(gradient * unit, axis=1, keepdims=True)
    return inverse * (gradient - jnp.mean(gradient, axis=1, keepdims=True) - unit * along)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + jax.lax.erf(x * HALF_ROOT))


def _gelu_gradient(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x * HALF_ROOT)) + x * (NORMAL * jnp.exp(-0.5 * x * x))


def _plain(sizes: Sizes, x, inner, outer, inner_bias, outer_bias, scale, shift):
    """Return what `_forward` computes, by XLA."""

    def norm(y):
        return _normalise(sizes, y.astype(jnp.float32))[0] * scale + shift

    y = norm(x).astype(x.dtype) if sizes.norm_first else x
    hidden = _gelu(matmul(y, inner, 1, 0) + inner_bias).astype(x.dtype)
    y = matmul(hidden, outer, 1, 0) + outer_bias
    return (x.astype(jnp.float32) + (y if sizes.norm_first else norm(y))).astype(x.dtype)
