"""The bodies of the two kernels in tpu.py.

Scores are transposed: a row is a key, and a column is a pair of a head and a query. The queries of
several heads, each zero outside its own head's channels, stand below each other in one operand. So
one matrix product of 128 channels and 128 columns serves all heads that share a row of 128
channels, and the softmax combines whole registers instead of the lanes inside a register.

Two kinds of order matter to the compiler, which schedules neighbouring instructions together. The
tiles of several windows take turns, and the steps of a tile stand beside earlier steps of later
tiles (`_pipeline`). By the compiler's schedule for a v5e, a window of Swin-V2-L's stage 3 then
takes 530 cycles for four heads, and 890 if one window follows the other.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from amuse_jax.models.attention.bounds import SMALLEST
from amuse_jax.models.attention.tpu_sizes import LANES, PACKED_ROWS, Sizes, Tile

DISTANCE = 6  # number of tiles between a step of a tile and its next step
EMPTY = -1e30  # lower bound of a query's largest score, far above the score of a masked key


def forward(sizes: Sizes, query_ref, key_ref, value_ref, scale_ref, *refs):
    """Compute softmax(scale * query key^T + bias + mask) value for a program's windows and heads.

    The refs are blocks as in tpu.py: query and out (windows, m, width), key and value (windows, n,
    width), scale (1, width), bias (n, columns) and mask (windows, n, 1).
    """
    *added, out_ref = refs
    masks, tiles = _Masks(sizes), sizes.tiles

    def run(windows):
        prepared = [
            (*_scale_and_normalise(sizes, query_ref[i], key_ref[i], scale_ref)[:2], value_ref[i].T)
            for i in windows
        ]
        turns = [(w, t) for t in range(len(tiles)) for w in range(len(windows))]
        scores, weights, parts = {}, {}, {}

        def multiply(turn):
            tile, (query, key, _) = tiles[turn[1]], prepared[turn[0]]
            scores[turn] = matmul(key[:, tile.span], masks.stack(query, tile), 1, 1)

        def normalise(turn):
            found = _add(sizes, scores.pop(turn), added, windows[turn[0]], tiles[turn[1]])
            weights[turn] = _weights(found)

        def combine(turn):
            tile, (powers, inverse) = tiles[turn[1]], weights.pop(turn)
            values = prepared[turn[0]][2][tile.channels]
            part = matmul(values, powers.astype(values.dtype), 1, 0) * inverse
            parts[turn] = _to_rows(tile, part)

        _pipeline(turns, multiply, normalise, combine)
        for w, i in enumerate(windows):
            out = masks.join([parts[w, t] for t in range(len(tiles))])
            out_ref[i] = out.astype(out_ref.dtype)

    _for_windows(sizes, run)


def backward(sizes: Sizes, query_ref, key_ref, value_ref, gradient_ref, scale_ref, *refs):
    """Compute the gradients of `forward` with respect to query, key and value.

    If there are refs for them, the gradients of the scale and the bias are summed over the images.
    """
    count = sizes.biased + sizes.masked
    added, (d_query_ref, d_key_ref, d_value_ref, *sums) = refs[:count], refs[count:]
    masks, tiles = _Masks(sizes), sizes.tiles

    @pl.when(pl.program_id(2) == 0)
    def _():
        for each in sums:
            each[...] = jnp.zeros_like(each)

    def run(windows):
        prepared = []
        for i in windows:
            query, key, lengths = _scale_and_normalise(sizes, query_ref[i], key_ref[i], scale_ref)
            prepared.append((query, key, key.T, lengths))
        turns = [(w, t) for t in range(len(tiles)) for w in range(len(windows))]
        products, d_scores, d_queries, d_keys, d_values = {}, {}, {}, {}, {}

        def multiply(turn):
            w, tile = turn[0], tiles[turn[1]]
            query, key, *_ = prepared[w]
            queries = masks.stack(query, tile)
            gradients = masks.stack(gradient_ref[windows[w]], tile)
            products[turn] = (
                queries,
                gradients,
                matmul(key[:, tile.span], queries, 1, 1),
                matmul(value_ref[windows[w], :, tile.span], gradients, 1, 1),
            )

        def differentiate(turn):
            w, tile = turn[0], tiles[turn[1]]
            queries, gradients, scores, d_weights = products.pop(turn)
            powers, inverse = _weights(_add(sizes, scores, added, windows[w], tile))
            weights = powers * inverse
            d_weights = d_weights - jnp.sum(weights * d_weights, axis=0, keepdims=True)
            found = weights * d_weights
            if len(sums) == 2:
                sums[1][:, tile.columns] += found
            dtype = queries.dtype
            d_scores[turn] = queries, gradients, weights.astype(dtype), found.astype(dtype)

        def combine(turn):
            w, tile = turn[0], tiles[turn[1]]
            queries, gradients, weights, found = d_scores.pop(turn)
            _accumulate(d_values, w, tile.span, matmul(weights, gradients, 1, 0))
            _accumulate(d_keys, w, tile.span, matmul(found, queries, 1, 0))
            part = matmul(prepared[w][2][tile.channels], found, 1, 0)
            d_queries[turn] = _to_rows(tile, part)

        _pipeline(turns, multiply, differentiate, combine)
        for w, i in enumerate(windows):
            d_value_ref[i] = _concatenate(sizes, d_values, w).astype(d_value_ref.dtype)
            d_query = masks.join([d_queries[w, t] for t in range(len(tiles))])
            d_key, lengths = _concatenate(sizes, d_keys, w), prepared[w][3]
            if sums:
                unit = query_ref[i].astype(jnp.float32) * (lengths[0] if sizes.cosine else 1)
                sums[0][...] += jnp.sum(d_query * unit, axis=0, keepdims=True)
            d_query = d_query * scale_ref[...]
            if sizes.cosine:
                d_query = _unit_gradient(sizes, query_ref[i], lengths[0], d_query)
                d_key = _unit_gradient(sizes, key_ref[i], lengths[1], d_key)
            d_query_ref[i] = d_query.astype(d_query_ref.dtype)
            d_key_ref[i] = d_key.astype(d_key_ref.dtype)

    _for_windows(sizes, run)


def _for_windows(sizes: Sizes, run: Callable):
    """Call `run` with the indices of the windows that take turns, until all have run."""
    count = sizes.in_turns

    def body(turn, _):
        run([turn * count + w for w in range(count)])

    jax.lax.fori_loop(0, sizes.windows // count, body, None)


def _pipeline(items: list, *steps: Callable):
    """Apply the steps to every item; a step runs DISTANCE items behind the step before it."""
    for time in range(len(items) + DISTANCE * (len(steps) - 1)):
        for place, step in enumerate(steps):
            item = time - place * DISTANCE
            if 0 <= item < len(items):
                step(items[item])


class _Masks:
    """The channels of each head."""

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        self.masks = {
            (head, tile.span.start, tile.span.stop): self._mask(head, tile.span)
            for tile in sizes.tiles
            for head, *_ in tile.pieces
        }

    def _mask(self, head: int, span: slice) -> Array:
        channel = span.start + jax.lax.broadcasted_iota(jnp.int32, (1, span.stop - span.start), 1)
        first = head * self.sizes.channels
        return (channel >= first) & (channel < first + self.sizes.channels)

    def stack(self, x: Array, tile: Tile) -> Array:
        """Return the rows of x (m, width) that belong to the tile's columns.

        Returns:
          (columns, span); a row is zero outside its head's channels.
        """
        mask = {head: self.masks[head, tile.span.start, tile.span.stop] for head, *_ in tile.pieces}
        pieces = [
            _select(mask[head], x[first:last, tile.span]) for head, first, last in tile.pieces
        ]
        return jnp.concatenate(pieces)

    def join(self, parts: list[Array]) -> Array:
        """Return (m, width): of every tile's part (columns, span) the channels of its heads."""
        channels, rows = self.sizes.channels, []
        for start in range(0, self.sizes.width, LANES):
            row = slice(start, min(start + LANES, self.sizes.width))
            joined = None
            for head in range(row.start // channels, -(-row.stop // channels)):
                pieces = [
                    part[columns, row.start - tile.span.start : row.stop - tile.span.start]
                    for tile, part in zip(self.sizes.tiles, parts)
                    for columns in tile.columns_of(head)
                ]
                piece = jnp.concatenate(pieces)
                mask = self._mask(head, row)
                joined = piece if joined is None else jnp.where(mask, piece, joined)
            rows.append(joined)
        return jnp.concatenate(rows, axis=1)


def _scale_and_normalise(sizes: Sizes, query: Array, key: Array, scale_ref):
    """Return the scaled queries, the keys, and the inverse lengths of both (empty if not cosine).

    Queries and keys have the dtype of the matrix products.
    """
    lengths, dtype, scale = (), key.dtype, scale_ref[...]
    if sizes.cosine:
        lengths = _inverse_lengths(sizes, query), _inverse_lengths(sizes, key)
        scale, key = lengths[0] * scale, (key.astype(jnp.float32) * lengths[1]).astype(dtype)
    return (query.astype(jnp.float32) * scale).astype(dtype), key, lengths


def _inverse_lengths(sizes: Sizes, x: Array) -> Array:
    """Return 1 / length of each head's part of x (m, width), repeated in the head's channels."""
    squares = x.astype(jnp.float32) ** 2
    squares = jnp.maximum(_sum_of_heads(sizes, squares, x.dtype), SMALLEST)
    return jnp.exp2(-0.5 * jnp.log2(squares))  # on a v5e cheaper than rsqrt


def _sum_of_heads(sizes: Sizes, x: Array, dtype) -> Array:
    """Sum x (m, width) over the channels of each head; every channel gets its head's sum."""
    row, column = (
        jax.lax.div(jax.lax.broadcasted_iota(jnp.int32, (sizes.width,) * 2, axis), sizes.channels)
        for axis in (0, 1)
    )
    return matmul(x.astype(dtype), (row == column).astype(dtype), 1, 0)


def _unit_gradient(sizes: Sizes, x: Array, inverse_length: Array, gradient: Array) -> Array:
    """Return the gradient with respect to x, given the gradient of x / length."""
    unit = x.astype(jnp.float32) * inverse_length
    along = _sum_of_heads(sizes, unit * gradient, x.dtype)
    return inverse_length * (gradient - unit * along)


def _add(sizes: Sizes, scores: Array, added, window, tile: Tile) -> Array:
    """Add the bias and the mask to a tile's scores (n, columns)."""
    if sizes.biased:
        scores = scores + added[0][:, tile.columns]
    if sizes.masked:
        scores = scores + added[-1][window]
    return scores


def _weights(scores: Array) -> tuple[Array, Array]:
    """Return exp(scores - largest score) (n, columns), and 1 / its sums (1, columns).

    The weights of a query without keys are zero.
    """
    highest = jnp.maximum(jnp.max(scores, axis=0, keepdims=True), EMPTY)
    powers = jnp.exp(scores - highest)
    # The largest score contributes 1 to the sum.
    return powers, 1 / jnp.maximum(jnp.sum(powers, axis=0, keepdims=True), 1)


def _to_rows(tile: Tile, part: Array) -> Array:
    """(tile's channels, columns) -> (columns, span), with zeros in the other channels."""
    above = tile.channels.start - tile.span.start
    below = tile.span.stop - tile.channels.stop
    zeros = lambda rows: [jnp.zeros((rows, part.shape[1]), part.dtype)] if rows else []  # noqa: E731
    return jnp.concatenate([*zeros(above), part, *zeros(below)]).T


def _select(mask: Array, x: Array) -> Array:
    """Return x where the mask (1, channels) is true, else zero."""
    if x.dtype == jnp.bfloat16 and len(x) % PACKED_ROWS == 0:  # pairs of rows share a register
        pairs = pltpu.bitcast(x, jnp.int32)
        return pltpu.bitcast(pairs & -mask.astype(jnp.int32), x.dtype)
    return jnp.where(mask, x, jnp.zeros_like(x))


def matmul(x: Array, y: Array, x_axis: int, y_axis: int) -> Array:
    """Contract two axes of two matrices, with float32 sums; float32 operands are not rounded."""
    exact = x.dtype == jnp.float32
    precision = jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        x,
        y,
        (((x_axis,), (y_axis,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def _accumulate(sums: dict, window: int, span: slice, part: Array):
    """Add (n, span) to the sums, which are kept by window and row of 128 channels."""
    for first in range(span.start, span.stop, LANES):
        row = part[:, first - span.start : first - span.start + LANES]
        key = window, first
        sums[key] = sums[key] + row if key in sums else row


def _concatenate(sizes: Sizes, sums: dict, window: int) -> Array:
    rows = [sums[window, first] for first in range(0, sizes.width, LANES)]
    return jnp.concatenate(rows, axis=1)
