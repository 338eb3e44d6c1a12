"""Attention for TPUs as two Pallas kernels, one for the forward and one for the backward pass.

XLA writes all scores to memory, and pads heads of 24 or 32 channels to rows of 128. On a v5e an
attention layer of Swin-V2-L's stage 3 then takes four times as long as all its matrix products.
Here tokens keep the layout (tokens, heads * channels), a kernel program handles the heads that fill
whole rows of 128 channels, and the scores never leave the chip. tpu_kernels.py holds the programs,
and tpu_sizes.py divides the work.

The backward pass computes the scores again from queries and keys.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from amuse_jax.models.attention import tpu_kernels
from amuse_jax.models.attention.bounds import MASKED
from amuse_jax.models.attention.tpu_sizes import LANES, Sizes


def attend(
    query: Array,
    key: Array,
    value: Array,
    scale: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    *,
    cosine: bool = False,
) -> Array:
    """Return softmax(scale * query key^T + bias) value in every window.

    The softmax runs in float32. A query all of whose keys are masked gets zeros, with zero
    gradients.

    Args:
      query: (b, w, m, heads * c) for b images with w windows each.
      key, value: (b, w, n, heads * c).
      scale: (heads,) float32.
      bias: (w or 1, heads, m, n) float32. A pair with the least finite number is masked.
      mask: (b, w, n) bool, True = may be attended to.
      cosine: whether to divide queries and keys by their lengths first.
    Returns:
      (b, w, m, heads * c) in the dtype of value.
    """
    sizes = Sizes.of(query, key, len(scale), cosine, bias, mask)
    if mask is not None:
        mask = jnp.where(mask, 0.0, MASKED)[..., None]
    if bias is not None:
        bias = _columns(sizes, bias)
    scale = jnp.repeat(scale, sizes.channels)[None]
    return _attend(sizes, query, key, value, scale, bias, mask)


def _columns(sizes: Sizes, bias: Array) -> Array:
    """(w or 1, heads, m, n) -> (w or 1, groups, n, columns of the heads of a group)."""
    bias = jnp.pad(bias, ((0, 0), (0, 0), (0, sizes.columns - sizes.tokens), (0, 0)))
    bias = bias.reshape(len(bias), -1, sizes.group * sizes.columns, sizes.keys)
    return jnp.swapaxes(bias, 2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(sizes, query, key, value, scale, bias, mask):
    queries, keys, *rest = _specs(sizes, bias)
    return pl.pallas_call(
        functools.partial(tpu_kernels.forward, sizes),
        grid=sizes.grid,
        in_specs=[queries, keys, keys, *rest],
        out_specs=queries,
        out_shape=jax.ShapeDtypeStruct(query.shape, value.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',) * 3),
        **_costs(sizes, backwards=False),
        name='attention',
    )(query, key, value, scale, *_given(bias, mask))


def _attend_forward(sizes, *inputs):
    trained = any(each is not None and each.perturbed for each in inputs[3:5])
    inputs = [each if each is None else each.value for each in inputs]
    return _attend(sizes, *inputs), (inputs, () if trained else None)


def _attend_backward(sizes, residuals, gradient):
    (query, key, value, scale, bias, mask), trained = residuals
    queries, keys, *rest = _specs(sizes, bias)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)]
    specs = [queries, keys, keys]
    if trained is not None:
        shapes += [jax.ShapeDtypeStruct((sizes.places, 1, scale.shape[1]), jnp.float32)]
        specs += [pl.BlockSpec((None, 1, sizes.width), lambda group, place, _: (place, 0, group))]
        if sizes.biased:
            shapes += [jax.ShapeDtypeStruct((sizes.places, *bias.shape[1:]), jnp.float32)]
            specs += [_bias_spec(sizes, shared=False)]
    gradients = pl.pallas_call(
        functools.partial(tpu_kernels.backward, sizes),
        grid=sizes.grid,
        in_specs=[queries, keys, keys, queries, *rest],
        out_specs=specs,
        out_shape=shapes,
        compiler_params=pltpu.CompilerParams(
            # The bias's gradient is summed over the images, so these programs run in order.
            dimension_semantics=('parallel', 'parallel', 'arbitrary')
        ),
        **_costs(sizes, backwards=True),
        name='attention_gradient',
    )(query, key, value, gradient.astype(value.dtype), scale, *_given(bias, mask))
    zeros = jax.tree.map(jnp.zeros_like, (scale, bias, mask))
    if trained is None:
        return *gradients, *zeros
    *gradients, d_scale, d_bias = (*gradients, None) if not sizes.biased else gradients
    if sizes.biased and len(bias) == 1:
        d_bias = d_bias.sum(0, keepdims=True)
    return *gradients, d_scale.sum(0), d_bias, zeros[2]


_attend.defvjp(_attend_forward, _attend_backward, symbolic_zeros=True)


def _given(*arrays):
    return [array for array in arrays if array is not None]


def _specs(sizes: Sizes, bias: Array | None) -> list[pl.BlockSpec]:
    """Return the block specs of queries, keys, scale, and of the bias and the mask if given."""

    def windows(tokens):
        shape = sizes.windows, None, tokens, sizes.width
        return pl.BlockSpec(shape, lambda group, place, image: (image, place, 0, group))

    scale = pl.BlockSpec((1, sizes.width), lambda group, place, image: (0, group))
    specs = [windows(sizes.tokens), windows(sizes.keys), scale]
    if sizes.biased:
        specs.append(_bias_spec(sizes, shared=len(bias) == 1))
    if sizes.masked:
        shape = sizes.windows, None, sizes.keys, 1
        specs.append(pl.BlockSpec(shape, lambda _, place, image: (image, place, 0, 0)))
    return specs


def _bias_spec(sizes: Sizes, shared: bool) -> pl.BlockSpec:
    shape = None, None, sizes.keys, sizes.group * sizes.columns
    return pl.BlockSpec(shape, lambda group, place, _: (0 if shared else place, group, 0, 0))


def _costs(sizes: Sizes, backwards: bool) -> dict[str, Any]:
    """Return arguments of pallas_call: the cost estimate, and the useful FLOPs as metadata.

    The estimate is for the compiler's scheduling and counts matrix products in squares of 128, as
    the matrix unit computes them. The useful FLOPs are those of attention alone, without masked
    channels and without scores that are computed again.
    """
    programs = sizes.images * sizes.places * sizes.heads // sizes.group
    tokens, keys, width = sizes.tokens, sizes.keys, sizes.width

    def product(rows, *sides):
        return rows * math.prod(-(-side // LANES) for side in sides) * LANES**2

    def sizes_of(part):
        return part.stop - part.start

    program_products = sum(
        (4 if backwards else 1) * product(keys, LANES, sizes_of(tile.span))
        + product(sizes_of(tile.channels), keys, LANES)
        for tile in sizes.tiles
    )
    program_products += sizes.cosine * (1 + backwards) * product(tokens + keys, width, width)
    pairs = sizes.images * sizes.places * sizes.heads * tokens * keys
    arrays = (3 if backwards else 2) * tokens + (4 if backwards else 2) * keys
    return {
        'cost_estimate': pl.CostEstimate(
            flops=2 * programs * program_products,
            transcendentals=pairs,
            bytes_accessed=2 * programs * arrays * width,
        ),
        'metadata': {'product_flops': str(2 * (4 if backwards else 2) * pairs * sizes.channels)},
    }
