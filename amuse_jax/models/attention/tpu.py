"""Attention for TPUs as two Pallas kernels, one for the forward and one for the backward pass.

XLA writes all scores to memory, and pads heads of 24 or 32 channels to rows of 128. On a v5e an
attention layer of Swin-V2-L's stage 3 then takes four times as long as all its matrix products.
Here tokens keep the layout (tokens, heads * channels), a kernel program handles the heads that fill
whole rows of 128 channels, and the scores never leave the chip. To separate the heads, the kernel
masks the other heads' channels of a key or value; this costs nothing, because the matrix unit
multiplies 128 channels at once anyway.

The backward pass computes the scores again from queries and keys.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128  # channels that the hardware handles as one row
MAX_WINDOWS = 8  # per program, if they fit: enough work to hide the program's start
BLOCK_BYTES = 2**22  # size of a program's tokens; a v5e's core has 16 MiB for a program
SMALLEST = 1e-24  # lower bound of a squared length
MASKED = float(np.finfo(np.float32).min)  # score of a masked key


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a kernel.

    Attributes:
      images, places: b and w of queries (b, w, tokens, heads * channels): images, and windows in an
        image.
      tokens, keys: m and n, queries and keys in a window.
      channels: c, channels of a head.
      heads: number of heads.
      group: heads per program.
      windows: windows per program, all at the same place of different images.
      cosine: whether queries and keys are divided by their lengths.
      biased, masked: whether there is a bias, and whether there is a mask.
    """

    images: int
    places: int
    tokens: int
    keys: int
    channels: int
    heads: int
    group: int
    windows: int
    cosine: bool
    biased: bool
    masked: bool

    @classmethod
    def of(cls, query: Array, key: Array, heads: int, cosine: bool, bias, mask) -> 'Sizes':
        """Return the sizes for these arrays, with as much work per program as fits."""
        (images, places, tokens, width), keys = query.shape, key.shape[2]
        channels = width // heads
        group = math.lcm(channels, LANES) // channels
        group = group if heads % group == 0 else heads
        one = (4 * tokens + 4 * keys) * group * channels * query.dtype.itemsize
        most = max(1, min(MAX_WINDOWS, BLOCK_BYTES // one))
        windows = max(n for n in range(1, most + 1) if images % n == 0)
        given = bias is not None, mask is not None
        return cls(images, places, tokens, keys, channels, heads, group, windows, cosine, *given)

    @property
    def width(self) -> int:
        """Number of channels that one kernel program handles."""
        return self.group * self.channels

    @property
    def grid(self) -> tuple[int, int, int]:
        """Numbers of programs: head groups, places, groups of images."""
        return self.heads // self.group, self.places, self.images // self.windows

    @property
    def unroll(self) -> int:
        """Number of windows whose instructions the compiler may interleave."""
        return 2 - self.windows % 2

    def spans(self) -> Iterator[tuple[int, slice]]:
        """Yield each head of a program and the span of whole rows of 128 channels that holds it."""
        for head in range(self.group):
            first = head * self.channels // LANES * LANES
            last = -(-(head + 1) * self.channels // LANES) * LANES
            yield head, slice(first, min(last, self.width))


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

    The softmax runs in float32.

    Args:
      query: (b, w, m, heads * c) for b images with w windows each.
      key, value: (b, w, n, heads * c).
      scale: (heads,) float32.
      bias: (w or 1, heads, m, n) float32. It must be finite; use the least finite number in place
        of -inf.
      mask: (b, w, n) bool, True = may be attended to.
      cosine: whether to divide queries and keys by their lengths first.
    Returns:
      (b, w, m, heads * c) in the dtype of value.
    """
    sizes = Sizes.of(query, key, len(scale), cosine, bias, mask)
    if mask is not None:
        mask = jnp.where(mask, 0.0, MASKED)[:, :, None]
    scale = jnp.repeat(scale, sizes.channels)[None]
    return _attend(sizes, query, key, value, scale, bias, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(sizes, query, key, value, scale, bias, mask):
    queries, keys, *rest = _specs(sizes, bias)
    return pl.pallas_call(
        functools.partial(_forward, sizes),
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
        functools.partial(_backward, sizes),
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
        shape = sizes.windows, None, 1, sizes.keys
        specs.append(pl.BlockSpec(shape, lambda _, place, image: (image, place, 0, 0)))
    return specs


def _bias_spec(sizes: Sizes, shared: bool) -> pl.BlockSpec:
    shape = None, sizes.group, sizes.tokens, sizes.keys
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

    program_products = sum(
        (2 if backwards else 1) * product(tokens, span.stop - span.start, keys)
        + product(tokens, keys, span.stop - span.start)
        + backwards * 2 * product(keys, tokens, span.stop - span.start)
        for _, span in sizes.spans()
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


def _forward(sizes, query_ref, key_ref, value_ref, scale_ref, *refs):
    masks = _masks(sizes)
    *added, out_ref = refs

    def window(i, _):
        query, key, _ = _scale_and_normalise(sizes, query_ref[i], key_ref[i], scale_ref[...])
        value = value_ref[i]
        parts = {}
        for head, span in sizes.spans():
            mask = masks[head]
            scores, _ = _scores(sizes, query, key, head, span, mask, added, i)
            weights, sums = _weights(scores)
            part = _dot(weights.astype(value.dtype), _select(mask, value[:, span]), 1, 0)
            _add(parts, span, part / sums)
        out_ref[i] = _concatenate_rows(sizes, parts).astype(out_ref.dtype)

    jax.lax.fori_loop(0, sizes.windows, window, None, unroll=sizes.unroll)


def _backward(sizes, query_ref, key_ref, value_ref, gradient_ref, scale_ref, *refs):
    masks = _masks(sizes)
    count = sizes.biased + sizes.masked
    added, (d_query_ref, d_key_ref, d_value_ref, *sums) = refs[:count], refs[count:]

    @pl.when(pl.program_id(2) == 0)
    def _():
        for each in sums:
            each[...] = jnp.zeros_like(each)

    def window(i, _):
        query, key, lengths = _scale_and_normalise(sizes, query_ref[i], key_ref[i], scale_ref[...])
        value, gradient = value_ref[i], gradient_ref[i]
        d_query, d_key, d_value = {}, {}, {}
        for head, span in sizes.spans():
            mask = masks[head]
            scores, only_key = _scores(sizes, query, key, head, span, mask, added, i)
            weights, row = _weights(scores)
            weights = weights / row
            d_weights = _dot(gradient[:, span], _select(mask, value[:, span]), 1, 1)
            row = jnp.sum(weights * d_weights, axis=1, keepdims=True)
            d_scores = weights * (d_weights - row)
            if len(sums) == 2:
                sums[1][head] += d_scores
            d_scores = d_scores.astype(value.dtype)
            weights = weights.astype(value.dtype)
            _add(d_query, span, _dot(d_scores, only_key, 1, 0))
            _add(d_key, span, _select(mask, _dot(d_scores, query[:, span], 0, 0)))
            _add(d_value, span, _select(mask, _dot(weights, gradient[:, span], 0, 0)))
        d_query, d_key, d_value = (
            _concatenate_rows(sizes, parts) for parts in (d_query, d_key, d_value)
        )
        d_value_ref[i] = d_value.astype(d_value_ref.dtype)
        if sums:
            unscaled = query_ref[i].astype(jnp.float32)
            if sizes.cosine:
                unscaled = unscaled * lengths[0]
            sums[0][...] += jnp.sum(d_query * unscaled, axis=0, keepdims=True)
        d_query = d_query * scale_ref[...]
        if sizes.cosine:
            d_query = _unit_gradient(sizes, query_ref[i], lengths[0], d_query)
            d_key = _unit_gradient(sizes, key_ref[i], lengths[1], d_key)
        d_query_ref[i] = d_query.astype(d_query_ref.dtype)
        d_key_ref[i] = d_key.astype(d_key_ref.dtype)

    jax.lax.fori_loop(0, sizes.windows, window, None, unroll=sizes.unroll)


def _masks(sizes: Sizes) -> list[Array]:
    """Return, for each head, the mask (1, channels) of its own channels in its span."""
    masks = []
    for head, span in sizes.spans():
        channel = span.start + jax.lax.broadcasted_iota(jnp.int32, (1, span.stop - span.start), 1)
        first = head * sizes.channels
        masks.append((channel >= first) & (channel < first + sizes.channels))
    return masks


def _scale_and_normalise(sizes, query, key, scale):
    """Return the scaled queries, the keys, and the inverse lengths of both (empty if not cosine).

    Queries and keys have the dtype of the matrix products.
    """
    lengths, dtype = (), key.dtype
    if sizes.cosine:
        lengths = _inverse_lengths(sizes, query), _inverse_lengths(sizes, key)
        query, key = query * lengths[0], (key * lengths[1]).astype(dtype)
    return (query * scale).astype(dtype), key, lengths


def _inverse_lengths(sizes, x):
    """Return 1 / length of each head's part of x (m, width), repeated in the head's channels."""
    squares = x.astype(jnp.float32) ** 2
    return jax.lax.rsqrt(jnp.maximum(_sum_of_heads(sizes, squares, x.dtype), SMALLEST))


def _sum_of_heads(sizes, x, dtype):
    """Sum x (m, width) over the channels of each head; every channel gets its head's sum."""
    row, column = (
        jax.lax.div(jax.lax.broadcasted_iota(jnp.int32, (sizes.width,) * 2, axis), sizes.channels)
        for axis in (0, 1)
    )
    return _dot(x.astype(dtype), (row == column).astype(dtype), 1, 0)


def _unit_gradient(sizes, x, inverse_length, gradient):
    """Return the gradient with respect to x, given the gradient of x / length."""
    unit = x.astype(jnp.float32) * inverse_length
    along = _sum_of_heads(sizes, unit * gradient, x.dtype)
    return inverse_length * (gradient - unit * along)


def _scores(sizes, query, key, head, span, mask, added, i):
    """Return a head's scores (m, n) in float32, and its keys, zero in other heads' channels."""
    key = _select(mask, key[:, span])
    scores = _dot(query[:, span], key, 1, 1)
    if sizes.biased:
        scores = scores + added[0][head]
    if sizes.masked:
        scores = jnp.maximum(scores + added[-1][i], MASKED)  # the sum can overflow to -inf
    return scores, key


def _weights(scores):
    """Return exp(scores - largest score) (m, n), and the sums (m, 1) that normalise it."""
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights, jnp.sum(weights, axis=1, keepdims=True)


def _select(mask, x):
    return jnp.where(mask, x, jnp.zeros_like(x))


def _dot(x, y, x_axis, y_axis):
    exact = x.dtype == jnp.float32
    precision = jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        x,
        y,
        (((x_axis,), (y_axis,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _add(parts, span, part):
    """Add `part` to `parts`, a dict of the rows of 128 channels, by their first channel."""
    for first in range(span.start, span.stop, LANES):
        row = part[:, first - span.start : first - span.start + LANES]
        parts[first] = parts[first] + row if first in parts else row


def _concatenate_rows(sizes, parts):
    rows = [parts[first] for first in range(0, sizes.width, LANES)]
    return rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=1)
