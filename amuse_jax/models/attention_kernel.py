"""Attention for TPUs, as one kernel forwards and one backwards.

XLA writes all scores to memory, and lays heads of 24 or 32 channels out in rows of 128: on a v5e an
attention layer of Swin-V2-L's stage 3 then takes four times as long as all its products. Here
tokens keep their (tokens, heads * channels) layout, a program takes the heads of whole rows of 128
channels, and the scores never leave the chip. Heads are told apart by masking the other channels of
a key or value: the matrix unit takes 128 of them anyway.

Backwards the scores are computed again from queries and keys.
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

LANES = 128
AT_ONCE = 8  # windows of a program, where they fit: enough work to hide its beginning
BLOCK_BYTES = 2**22  # of a program's tokens; a v5e's core gives a program 16 MiB
SMALLEST = 1e-24  # of a squared length
MASKED = float(np.finfo(np.float32).min)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a kernel is made for.

    Attributes:
      pictures, places: b and w of the windows (b, w, tokens, heads * channels).
      tokens, keys, channels: m, n and c.
      group: heads of a program.
      at_once: windows of a program, all of the same place.
      cosine: whether queries and keys are divided by their lengths.
      biased, masked: which of the two there are.
    """

    pictures: int
    places: int
    tokens: int
    keys: int
    channels: int
    heads: int
    group: int
    at_once: int
    cosine: bool
    biased: bool
    masked: bool

    @classmethod
    def of(cls, query: Array, key: Array, heads: int, cosine: bool, bias, mask) -> 'Sizes':
        (pictures, places, tokens, width), keys = query.shape, key.shape[2]
        channels = width // heads
        group = math.lcm(channels, LANES) // channels
        group = group if heads % group == 0 else heads
        one = (4 * tokens + 4 * keys) * group * channels * query.dtype.itemsize
        most = max(1, min(AT_ONCE, BLOCK_BYTES // one))
        at_once = max(n for n in range(1, most + 1) if pictures % n == 0)
        given = bias is not None, mask is not None
        return cls(pictures, places, tokens, keys, channels, heads, group, at_once, cosine, *given)

    @property
    def width(self) -> int:
        """Of the channels of a program."""
        return self.group * self.channels

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.heads // self.group, self.places, self.pictures // self.at_once

    @property
    def unroll(self) -> int:
        """Windows whose instructions are woven together."""
        return 2 - self.at_once % 2

    def spans(self) -> Iterator[tuple[int, slice]]:
        """Each head of a program, and the whole rows of 128 channels that hold it."""
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
    """softmax(scale * query key^T + bias) value in every window; the softmax runs in float32.

    Args:
      query: (b, w, m, heads * c): of b pictures, w windows each.
      key, value: (b, w, n, heads * c).
      scale: (heads,) float32.
      bias: (w or 1, heads, m, n) float32; -inf is not allowed, the least finite number is.
      mask: (b, w, n) bool, which keys there are.
      cosine: divide queries and keys by their lengths first.
    Returns:
      (b, w, m, heads * c) in value's dtype.
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
        **_effort(sizes, backwards=False),
        name='attention',
    )(query, key, value, scale, *_given(bias, mask))


def _attend_forward(sizes, *inputs):
    trained = any(each is not None and each.perturbed for each in inputs[3:5])
    inputs = [each if each is None else each.value for each in inputs]
    return _attend(sizes, *inputs), (inputs, () if trained else None)


def _attend_backward(sizes, kept, gradient):
    (query, key, value, scale, bias, mask), trained = kept
    queries, keys, *rest = _specs(sizes, bias)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)]
    specs = [queries, keys, keys]
    if trained is not None:
        shapes += [jax.ShapeDtypeStruct((sizes.places, 1, scale.shape[1]), jnp.float32)]
        specs += [pl.BlockSpec((None, 1, sizes.width), lambda group, place, _: (place, 0, group))]
        if sizes.biased:
            shapes += [jax.ShapeDtypeStruct((sizes.places, *bias.shape[1:]), jnp.float32)]
            specs += [_bias_spec(sizes, shared=False)]
    found = pl.pallas_call(
        functools.partial(_backward, sizes),
        grid=sizes.grid,
        in_specs=[queries, keys, keys, queries, *rest],
        out_specs=specs,
        out_shape=shapes,
        compiler_params=pltpu.CompilerParams(
            # The sums of the bias's gradient are over the pictures.
            dimension_semantics=('parallel', 'parallel', 'arbitrary')
        ),
        **_effort(sizes, backwards=True),
        name='attention_gradient',
    )(query, key, value, gradient.astype(value.dtype), scale, *_given(bias, mask))
    nothing = jax.tree.map(jnp.zeros_like, (scale, bias, mask))
    if trained is None:
        return *found, *nothing
    *found, of_scale, of_bias = (*found, None) if not sizes.biased else found
    if sizes.biased and len(bias) == 1:
        of_bias = of_bias.sum(0, keepdims=True)
    return *found, of_scale.sum(0), of_bias, nothing[2]


_attend.defvjp(_attend_forward, _attend_backward, symbolic_zeros=True)


def _given(*arrays):
    return [array for array in arrays if array is not None]


def _specs(sizes: Sizes, bias: Array | None) -> list[pl.BlockSpec]:
    """Of queries, keys, the scale, and of bias and mask where there are any."""

    def windows(tokens):
        shape = sizes.at_once, None, tokens, sizes.width
        return pl.BlockSpec(shape, lambda group, place, picture: (picture, place, 0, group))

    scale = pl.BlockSpec((1, sizes.width), lambda group, place, picture: (0, group))
    specs = [windows(sizes.tokens), windows(sizes.keys), scale]
    if sizes.biased:
        specs.append(_bias_spec(sizes, shared=len(bias) == 1))
    if sizes.masked:
        shape = sizes.at_once, None, 1, sizes.keys
        specs.append(pl.BlockSpec(shape, lambda _, place, picture: (picture, place, 0, 0)))
    return specs


def _bias_spec(sizes: Sizes, shared: bool) -> pl.BlockSpec:
    shape = None, sizes.group, sizes.tokens, sizes.keys
    return pl.BlockSpec(shape, lambda group, place, _: (0 if shared else place, group, 0, 0))


def _effort(sizes: Sizes, backwards: bool) -> dict[str, Any]:
    """Of pallas_call: what it costs, for the compiler's planning, and its products' FLOPs.

    The cost counts products as the matrix unit does them, by squares of 128; the products' FLOPs
    are those of attention alone, without what is computed again.
    """
    programs = sizes.pictures * sizes.places * sizes.heads // sizes.group
    tokens, keys, width = sizes.tokens, sizes.keys, sizes.width

    def product(rows, *sides):
        return rows * math.prod(-(-side // LANES) for side in sides) * LANES**2

    of_program = sum(
        (2 if backwards else 1) * product(tokens, span.stop - span.start, keys)
        + product(tokens, keys, span.stop - span.start)
        + backwards * 2 * product(keys, tokens, span.stop - span.start)
        for _, span in sizes.spans()
    )
    of_program += sizes.cosine * (1 + backwards) * product(tokens + keys, width, width)
    pairs = sizes.pictures * sizes.places * sizes.heads * tokens * keys
    arrays = (3 if backwards else 2) * tokens + (4 if backwards else 2) * keys
    return {
        'cost_estimate': pl.CostEstimate(
            flops=2 * programs * of_program,
            transcendentals=pairs,
            bytes_accessed=2 * programs * arrays * width,
        ),
        'metadata': {'product_flops': str(2 * (4 if backwards else 2) * pairs * sizes.channels)},
    }


def _forward(sizes, query_ref, key_ref, value_ref, scale_ref, *refs):
    masks = _masks(sizes)
    *added, out_ref = refs

    def window(i, _):
        query, key, _ = _prepared(sizes, query_ref[i], key_ref[i], scale_ref[...])
        value = value_ref[i]
        parts = {}
        for head, span in sizes.spans():
            mask = masks[head]
            scores, _ = _scores(sizes, query, key, head, span, mask, added, i)
            weights, sums = _weights(scores)
            part = _dot(weights.astype(value.dtype), _only(mask, value[:, span]), 1, 0)
            _add(parts, span, part / sums)
        out_ref[i] = _joined(sizes, parts).astype(out_ref.dtype)

    jax.lax.fori_loop(0, sizes.at_once, window, None, unroll=sizes.unroll)


def _backward(sizes, query_ref, key_ref, value_ref, gradient_ref, scale_ref, *refs):
    masks = _masks(sizes)
    count = sizes.biased + sizes.masked
    added, (to_query, to_key, to_value, *sums) = refs[:count], refs[count:]

    @pl.when(pl.program_id(2) == 0)
    def _():
        for each in sums:
            each[...] = jnp.zeros_like(each)

    def window(i, _):
        query, key, lengths = _prepared(sizes, query_ref[i], key_ref[i], scale_ref[...])
        value, gradient = value_ref[i], gradient_ref[i]
        of_query, of_key, of_value = {}, {}, {}
        for head, span in sizes.spans():
            mask = masks[head]
            scores, only_key = _scores(sizes, query, key, head, span, mask, added, i)
            weights, row = _weights(scores)
            weights = weights / row
            of_weights = _dot(gradient[:, span], _only(mask, value[:, span]), 1, 1)
            row = jnp.sum(weights * of_weights, axis=1, keepdims=True)
            of_scores = weights * (of_weights - row)
            if len(sums) == 2:
                sums[1][head] += of_scores
            of_scores = of_scores.astype(value.dtype)
            weights = weights.astype(value.dtype)
            _add(of_query, span, _dot(of_scores, only_key, 1, 0))
            _add(of_key, span, _only(mask, _dot(of_scores, query[:, span], 0, 0)))
            _add(of_value, span, _only(mask, _dot(weights, gradient[:, span], 0, 0)))
        of_query, of_key, of_value = (
            _joined(sizes, parts) for parts in (of_query, of_key, of_value)
        )
        to_value[i] = of_value.astype(to_value.dtype)
        if sums:
            unscaled = query_ref[i].astype(jnp.float32)
            if sizes.cosine:
                unscaled = unscaled * lengths[0]
            sums[0][...] += jnp.sum(of_query * unscaled, axis=0, keepdims=True)
        of_query = of_query * scale_ref[...]
        if sizes.cosine:
            of_query = _of_unit(sizes, query_ref[i], lengths[0], of_query)
            of_key = _of_unit(sizes, key_ref[i], lengths[1], of_key)
        to_query[i] = of_query.astype(to_query.dtype)
        to_key[i] = of_key.astype(to_key.dtype)

    jax.lax.fori_loop(0, sizes.at_once, window, None, unroll=sizes.unroll)


def _masks(sizes: Sizes) -> list[Array]:
    """Of each head: which channels of its span are its own, (1, channels)."""
    found = []
    for head, span in sizes.spans():
        channel = span.start + jax.lax.broadcasted_iota(jnp.int32, (1, span.stop - span.start), 1)
        first = head * sizes.channels
        found.append((channel >= first) & (channel < first + sizes.channels))
    return found


def _prepared(sizes, query, key, scale):
    """Scaled queries and keys in the products' dtype; one over the lengths of both."""
    lengths, dtype = (), key.dtype
    if sizes.cosine:
        lengths = _inverse_lengths(sizes, query), _inverse_lengths(sizes, key)
        query, key = query * lengths[0], (key * lengths[1]).astype(dtype)
    return (query * scale).astype(dtype), key, lengths


def _inverse_lengths(sizes, x):
    """One over the length of each head's part of x (m, width), in each of its channels."""
    squares = x.astype(jnp.float32) ** 2
    return jax.lax.rsqrt(jnp.maximum(_sum_of_heads(sizes, squares, x.dtype), SMALLEST))


def _sum_of_heads(sizes, x, dtype):
    """(m, width): in each channel the sum over the channels of its head."""
    row, column = (
        jax.lax.div(jax.lax.broadcasted_iota(jnp.int32, (sizes.width,) * 2, axis), sizes.channels)
        for axis in (0, 1)
    )
    return _dot(x.astype(dtype), (row == column).astype(dtype), 1, 0)


def _of_unit(sizes, x, inverse_length, gradient):
    """Towards x the gradient of x over its length."""
    unit = x.astype(jnp.float32) * inverse_length
    along = _sum_of_heads(sizes, unit * gradient, x.dtype)
    return inverse_length * (gradient - unit * along)


def _scores(sizes, query, key, head, span, mask, added, i):
    """A head's scores (m, n) in float32, and its keys, zero in other heads' channels."""
    key = _only(mask, key[:, span])
    scores = _dot(query[:, span], key, 1, 1)
    if sizes.biased:
        scores = scores + added[0][head]
    if sizes.masked:
        scores = jnp.maximum(scores + added[-1][i], MASKED)  # not -inf
    return scores, key


def _weights(scores):
    """Attention (m, n), not yet divided by its sums (m, 1); and these."""
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights, jnp.sum(weights, axis=1, keepdims=True)


def _only(mask, x):
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
    """Adds to what is known of every row of 128 channels of the span."""
    for first in range(span.start, span.stop, LANES):
        row = part[:, first - span.start : first - span.start + LANES]
        parts[first] = parts[first] + row if first in parts else row


def _joined(sizes, parts):
    rows = [parts[first] for first in range(0, sizes.width, LANES)]
    return rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=1)
