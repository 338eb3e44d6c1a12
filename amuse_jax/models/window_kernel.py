"""Attention inside windows for TPUs, as one kernel forwards and one backwards.

XLA writes every window's scores to memory, and lays heads of 24 or 32 channels out in rows of 128:
on a v5e an attention layer of Swin-V2-L's stage 3 then takes four times as long as all its
products. Here tokens keep their (tokens, heads * channels) layout, a program takes the heads of
whole rows of 128 channels, and the scores never leave the chip. Heads are told apart by masking
the other channels of a key or value: the matrix unit takes 128 of them anyway.

Backwards the scores are computed again from queries and keys.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
WINDOWS_AT_ONCE = 8  # of a program: enough work to hide its beginning
SMALLEST = 1e-24  # of a squared length


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a kernel is made for.

    Attributes:
      pictures, places: b and w of the windows (b, w, m, heads * c).
      tokens, channels: m and c.
      group: heads of a program.
      cosine: whether queries and keys are divided by their lengths.
    """

    pictures: int
    places: int
    tokens: int
    channels: int
    heads: int
    group: int
    cosine: bool

    @classmethod
    def of(cls, query: Array, heads: int, cosine: bool) -> 'Sizes':
        pictures, places, tokens, width = query.shape
        channels = width // heads
        group = math.lcm(channels, LANES) // channels
        group = group if heads % group == 0 else heads
        return cls(pictures, places, tokens, channels, heads, group, cosine)

    @property
    def width(self) -> int:
        """Of the channels of a program."""
        return self.group * self.channels

    @property
    def at_once(self) -> int:
        return math.gcd(self.pictures, WINDOWS_AT_ONCE)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.heads // self.group, self.places, self.pictures // self.at_once

    def spans(self) -> Iterator[tuple[int, slice]]:
        """Each head of a program, and the whole rows of 128 channels that hold it."""
        for head in range(self.group):
            first = head * self.channels // LANES * LANES
            last = -(-(head + 1) * self.channels // LANES) * LANES
            yield head, slice(first, min(last, self.width))


def attend(
    query: Array, key: Array, value: Array, bias: Array, scale: Array, cosine: bool
) -> Array:
    """softmax(scale * query key^T + bias) value in every window; the softmax runs in float32.

    Args:
      query, key, value: (b, w, m, heads * c): of b pictures, w windows each.
      bias: (w or 1, heads, m, m) float32; -inf is not allowed, the least finite number is.
      scale: (heads,) float32.
      cosine: divide queries and keys by their lengths first.
    Returns:
      (b, w, m, heads * c) in value's dtype.
    """
    sizes = Sizes.of(query, bias.shape[1], cosine)
    return _attend(sizes, query, key, value, bias, jnp.repeat(scale, sizes.channels)[None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(sizes, query, key, value, bias, scale):
    return pl.pallas_call(
        functools.partial(_forward, sizes),
        grid=sizes.grid,
        in_specs=[*[_windows(sizes)] * 3, _bias(sizes, bias), _scale(sizes)],
        out_specs=_windows(sizes),
        out_shape=jax.ShapeDtypeStruct(value.shape, value.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',) * 3),
        **_effort(sizes, backwards=False),
        name='window_attention',
    )(query, key, value, bias, scale)


def _attend_forward(sizes, *inputs):
    with_bias = inputs[3].perturbed or inputs[4].perturbed
    inputs = [each.value for each in inputs]
    return _attend(sizes, *inputs), (inputs, () if with_bias else None)


def _attend_backward(sizes, kept, gradient):
    (query, key, value, bias, scale), with_bias = kept
    like = jax.ShapeDtypeStruct(value.shape, value.dtype)
    shapes, specs = [like] * 3, [_windows(sizes)] * 3
    if with_bias is not None:
        shapes += [jax.ShapeDtypeStruct((sizes.places, *bias.shape[1:]), jnp.float32)]
        shapes += [jax.ShapeDtypeStruct((sizes.places, 8, scale.shape[1]), jnp.float32)]
        specs += [_bias(sizes, shapes[3]), pl.BlockSpec((None, 8, sizes.width), _of_scale_sums)]
    found = pl.pallas_call(
        functools.partial(_backward, sizes),
        grid=sizes.grid,
        in_specs=[*[_windows(sizes)] * 4, _bias(sizes, bias), _scale(sizes)],
        out_specs=specs,
        out_shape=shapes,
        compiler_params=pltpu.CompilerParams(
            # The sums of the bias's gradient are over the pictures.
            dimension_semantics=('parallel', 'parallel', 'arbitrary')
        ),
        **_effort(sizes, backwards=True),
        name='window_attention_gradient',
    )(query, key, value, gradient.astype(value.dtype), bias, scale)
    if with_bias is None:
        return *found, jnp.zeros_like(bias), jnp.zeros_like(scale)
    *found, of_bias, of_scale = found
    if len(bias) == 1:
        of_bias = of_bias.sum(0, keepdims=True)
    return *found, of_bias, of_scale.sum((0, 1))[None]


_attend.defvjp(_attend_forward, _attend_backward, symbolic_zeros=True)


def _windows(sizes: Sizes) -> pl.BlockSpec:
    shape = sizes.at_once, None, sizes.tokens, sizes.width
    return pl.BlockSpec(shape, lambda group, place, picture: (picture, place, 0, group))


def _bias(sizes: Sizes, bias) -> pl.BlockSpec:
    shape = None, sizes.group, sizes.tokens, sizes.tokens
    shared = bias.shape[0] == 1
    return pl.BlockSpec(shape, lambda group, place, _: (0 if shared else place, group, 0, 0))


def _scale(sizes: Sizes) -> pl.BlockSpec:
    return pl.BlockSpec((1, sizes.width), lambda group, place, picture: (0, group))


def _of_scale_sums(group, place, picture):
    return place, 0, group


def _effort(sizes: Sizes, backwards: bool) -> dict[str, Any]:
    """Of pallas_call: what it costs, for the compiler's planning, and its products' FLOPs.

    The cost counts products as the matrix unit does them, by squares of 128; the products' FLOPs
    are those of attention alone.
    """
    programs = sizes.pictures * sizes.places * sizes.heads // sizes.group
    tokens, width = sizes.tokens, sizes.width

    def squares(*sides):
        return math.prod(-(-side // LANES) for side in sides) * LANES**2

    rows = sum(
        (3 if backwards else 1) * squares(tokens, span.stop - span.start)
        + (2 if backwards else 1) * squares(span.stop - span.start, tokens)
        for _, span in sizes.spans()
    )
    rows += sizes.cosine * (4 if backwards else 2) * squares(width, width)
    pairs = sizes.pictures * sizes.places * sizes.heads * tokens**2
    arrays, products = (7, 5) if backwards else (4, 2)
    return {
        'cost_estimate': pl.CostEstimate(
            flops=2 * programs * tokens * rows,
            transcendentals=pairs,
            bytes_accessed=arrays * 2 * programs * tokens * width,
        ),
        'metadata': {'product_flops': str(2 * products * pairs * sizes.channels)},
    }


def _forward(sizes, query_ref, key_ref, value_ref, bias_ref, scale_ref, out_ref):
    masks = _masks(sizes)

    def window(i, _):
        query, key, _ = _prepared(sizes, query_ref[i], key_ref[i], scale_ref[...])
        value = value_ref[i]
        parts = {}
        for head, span in sizes.spans():
            mask = masks[head]
            weights, sums, _ = _weights(query, key, bias_ref, head, span, mask)
            part = _dot(weights.astype(value.dtype), _only(mask, value[:, span]), 1, 0)
            _add(parts, span, part / sums)
        out_ref[i] = _joined(sizes, parts).astype(out_ref.dtype)

    jax.lax.fori_loop(0, sizes.at_once, window, None, unroll=math.gcd(sizes.at_once, 2))


def _backward(sizes, query_ref, key_ref, value_ref, gradient_ref, bias_ref, scale_ref, *out_refs):
    masks = _masks(sizes)
    to_query, to_key, to_value, *sums = out_refs
    if sums:
        to_bias, to_scale = sums

        @pl.when(pl.program_id(2) == 0)
        def _():
            to_bias[...] = jnp.zeros_like(to_bias)
            to_scale[...] = jnp.zeros_like(to_scale)

    def window(i, _):
        query, key, lengths = _prepared(sizes, query_ref[i], key_ref[i], scale_ref[...])
        value, gradient = value_ref[i], gradient_ref[i]
        of_query, of_key, of_value = {}, {}, {}
        for head, span in sizes.spans():
            mask = masks[head]
            weights, row, only_key = _weights(query, key, bias_ref, head, span, mask)
            weights = weights / row
            of_weights = _dot(gradient[:, span], _only(mask, value[:, span]), 1, 1)
            row = jnp.sum(weights * of_weights, axis=1, keepdims=True)
            of_scores = weights * (of_weights - row)
            if sums:
                to_bias[head] += of_scores
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
            scaled = query_ref[i].astype(jnp.float32)
            if sizes.cosine:
                scaled = scaled * lengths[0]
            products = (of_query * scaled).reshape(-1, 8, sizes.width)
            to_scale[...] += jnp.sum(products, axis=0)
        of_query = of_query * scale_ref[...]
        if sizes.cosine:
            of_query = _of_unit(sizes, query_ref[i], lengths[0], of_query)
            of_key = _of_unit(sizes, key_ref[i], lengths[1], of_key)
        to_query[i] = of_query.astype(to_query.dtype)
        to_key[i] = of_key.astype(to_key.dtype)

    jax.lax.fori_loop(0, sizes.at_once, window, None, unroll=math.gcd(sizes.at_once, 2))


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


def _weights(query, key, bias_ref, head, span, mask):
    """A head's attention (m, m) in float32, not yet divided by its sums (m, 1); these; and its
    keys, zero in other heads' channels."""
    key = _only(mask, key[:, span])
    scores = _dot(query[:, span], key, 1, 1) + bias_ref[head]
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights, jnp.sum(weights, axis=1, keepdims=True), key


def _only(mask, x):
    return jnp.where(mask, x, jnp.zeros_like(x))


def _dot(x, y, x_axis, y_axis):
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
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
