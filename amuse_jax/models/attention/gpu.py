"""Window attention for NVIDIA GPUs as Pallas kernels (Triton): forwards, backwards, and for biases.

XLA writes all scores to memory, and cuDNN's fused attention takes no cosine and no bias in float32;
around it queries and keys are normalised, split, shifted and put back, which moves more bytes than
attention itself. Here a program reads one head of one window out of the projection's result, in
which queries, keys and values lie side by side, and writes its place of the output. It finds the
tokens of a shifted window by their index, so the map is never rolled nor cut. Scores, softmax and
lengths are float32 and never leave the chip; the backward pass computes them again.

A block of a Triton program has a power of two of rows. So a window's tokens are handled in parts,
such as 144 = 128 + 16.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from amuse_jax.models.attention.bounds import MASKED, SMALLEST
from amuse_jax.models.window_map import WindowMap

MAX_TOKENS = 256  # of a window: the backward pass holds the gradients of all its keys in registers
MIN_ROWS = 16  # the matrix unit multiplies at least 16 rows
QUERY_ROWS, KEY_ROWS = 64, 128  # largest parts of the queries and of the keys
BIAS_PROGRAMS = 16  # into which the images are divided for the gradient of a bias


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a kernel.

    Attributes:
      map: how the map is cut into windows.
      heads, channels: number of heads and of channels of a head.
      cosine: whether queries and keys are divided by their lengths.
    """

    map: WindowMap
    heads: int
    channels: int
    cosine: bool

    @property
    def width(self) -> int:
        """Number of channels of all heads."""
        return self.heads * self.channels

    @property
    def lanes(self) -> int:
        """Number of channels that a program handles: those of a head, up to a power of two."""
        return max(MIN_ROWS, pl.next_power_of_2(self.channels))

    def parts(self, most: int) -> list[tuple[int, int]]:
        """Return the first token and the length of the parts of a window, `most` tokens at most."""
        parts, start = [], 0
        while start < self.map.tokens:
            rest = self.map.tokens - start
            rows = max(MIN_ROWS, min(most, 1 << (rest.bit_length() - 1)))
            parts.append((start, rows))
            start += rows
        return parts


def attend(qkv: Array, bias: Array, scale: Array, window_map: WindowMap, cosine: bool) -> Array:
    """Return softmax(scale * query key^T + bias) value inside each window of a map.

    Args:
      qkv: (b, padded h*w, 3 * heads * c) queries, keys and values of a padded map that is not
        rolled.
      bias: (heads, m, m) float32 for the m tokens of a window, by query and key.
      scale: (heads,) float32, not zero.
      window_map: how the map is cut into windows of at most MAX_TOKENS tokens.
      cosine: whether to divide queries and keys by their lengths first.
    Returns:
      (b, padded h*w, heads * c) in the dtype of qkv.
    """
    heads = len(bias)
    sizes = Sizes(window_map, heads, qkv.shape[-1] // (3 * heads), cosine)
    return _attend(sizes, qkv, bias, scale)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(sizes, qkv, bias, scale):
    shape = jax.ShapeDtypeStruct((*qkv.shape[:2], sizes.width), qkv.dtype)
    return _call(sizes, _forward, len(qkv), 2, shape)(qkv, bias, scale)


def _attend_forward(sizes, qkv, bias, scale):
    trained = bias.perturbed or scale.perturbed
    inputs = [each.value for each in (qkv, bias, scale)]
    return _attend(sizes, *inputs), (inputs, () if trained else None)


def _attend_backward(sizes, residuals, gradient):
    (qkv, bias, scale), trained = residuals
    arrays = qkv, bias, scale, gradient.astype(qkv.dtype)
    shape = jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)
    d_qkv = _call(sizes, _backward, len(qkv), 5, shape)(*arrays)
    if trained is None:
        return d_qkv, jnp.zeros_like(bias), jnp.zeros_like(scale)
    groups = min(BIAS_PROGRAMS, len(qkv))
    parts = len(sizes.parts(QUERY_ROWS))
    d_bias, d_scale = pl.pallas_call(
        functools.partial(_backward_bias, sizes),
        grid=(parts, sizes.heads, groups),
        out_shape=(
            jax.ShapeDtypeStruct((groups, *bias.shape), jnp.float32),
            jax.ShapeDtypeStruct((groups, parts, sizes.heads), jnp.float32),
        ),
        compiler_params=_parameters(sizes),
        **_named(sizes, 'window_attention_bias_gradient', len(qkv), 3),
    )(*arrays)
    return d_qkv, d_bias.sum(0), d_scale.sum((0, 1))


_attend.defvjp(_attend_forward, _attend_backward, symbolic_zeros=True)


def _call(sizes, kernel, images, products, shape):
    """Return a call of a kernel with a program per head, window and image."""
    return pl.pallas_call(
        functools.partial(kernel, sizes),
        grid=(sizes.heads, sizes.map.windows, images),
        out_shape=shape,
        compiler_params=_parameters(sizes),
        **_named(sizes, 'window_attention' + kernel.__name__, images, products),
    )


def _parameters(sizes: Sizes) -> triton.CompilerParams:
    return triton.CompilerParams(num_warps=4 if sizes.map.tokens <= 64 else 8, num_stages=1)


def _named(sizes: Sizes, name: str, images: int, products: int) -> dict[str, Any]:
    """Return a kernel's name and metadata, both with the FLOPs of its products.

    Unused rows of a part do not count. A compiled program for GPUs keeps the name alone.
    """
    pairs = images * sizes.map.windows * sizes.heads * sizes.map.tokens**2
    flops = 2 * products * pairs * sizes.channels
    return {'name': f'{name}_{flops}_flops', 'metadata': {'product_flops': str(flops)}}


def _forward(sizes, qkv_ref, bias_ref, scale_ref, out_ref):
    head, place, image = (pl.program_id(axis) for axis in range(3))
    keys = [_Tokens(sizes, place, *part) for part in sizes.parts(KEY_ROWS)]
    key = [_unit(sizes, part.load(qkv_ref, image, head, 1))[0] for part in keys]
    value = [part.load(qkv_ref, image, head, 2) for part in keys]
    scale = scale_ref[head]
    for part in sizes.parts(QUERY_ROWS):
        queries = _Tokens(sizes, place, *part)
        query = _scaled(sizes, queries.load(qkv_ref, image, head, 0), scale)[0]
        weights, total = _weights(_scores(query, key, queries, keys, bias_ref, head))
        attended = sum(_dot(w.astype(v.dtype), v, 1, 0) for w, v in zip(weights, value))
        queries.store(out_ref, image, head, 0, attended / total)


def _backward(sizes, qkv_ref, bias_ref, scale_ref, gradient_ref, d_qkv_ref):
    head, place, image = (pl.program_id(axis) for axis in range(3))
    keys = [_Tokens(sizes, place, *part) for part in sizes.parts(KEY_ROWS)]
    key, key_lengths = zip(*(_unit(sizes, k.load(qkv_ref, image, head, 1)) for k in keys))
    value = [part.load(qkv_ref, image, head, 2) for part in keys]
    scale = scale_ref[head]
    d_key = [jnp.zeros((part.rows, sizes.lanes), jnp.float32) for part in keys]
    d_value = [jnp.zeros((part.rows, sizes.lanes), jnp.float32) for part in keys]
    for part in sizes.parts(QUERY_ROWS):
        queries = _Tokens(sizes, place, *part)
        raw = queries.load(qkv_ref, image, head, 0)
        query, lengths = _scaled(sizes, raw, scale)
        gradient = queries.load(gradient_ref, image, head, 0)
        weights, total = _weights(_scores(query, key, queries, keys, bias_ref, head))
        weights, d_scores = _score_gradients(weights, total, gradient, value)
        d_query = jnp.zeros((queries.rows, sizes.lanes), jnp.float32)
        for i, (weight, d_score) in enumerate(zip(weights, d_scores)):
            d_score = d_score.astype(query.dtype)
            d_value[i] += _dot(weight.astype(query.dtype), gradient, 0, 0)
            d_key[i] += _dot(d_score, query, 0, 0)
            d_query += _dot(d_score, key[i], 1, 0)
        d_query = _unit_gradient(sizes, raw, lengths, d_query * scale)
        queries.store(d_qkv_ref, image, head, 0, d_query)
    for i, part in enumerate(keys):
        raw = part.load(qkv_ref, image, head, 1)
        part.store(d_qkv_ref, image, head, 1, _unit_gradient(sizes, raw, key_lengths[i], d_key[i]))
        part.store(d_qkv_ref, image, head, 2, d_value[i])


def _backward_bias(sizes, qkv_ref, bias_ref, scale_ref, gradient_ref, d_bias_ref, d_scale_ref):
    """Sum the gradients of a part of a head's scores over the images of a group."""
    part, head, group = (pl.program_id(axis) for axis in range(3))
    images, count = qkv_ref.shape[0], pl.num_programs(2)
    scale = scale_ref[head]
    for index, (start, rows) in enumerate(sizes.parts(QUERY_ROWS)):

        @pl.when(part == index)
        def _(start=start, rows=rows, index=index):
            def window(step, sums):
                image, place = group + step // sizes.map.windows * count, step % sizes.map.windows
                queries = _Tokens(sizes, place, start, rows)
                keys = [_Tokens(sizes, place, *each) for each in sizes.parts(KEY_ROWS)]
                key = [_unit(sizes, k.load(qkv_ref, image, head, 1))[0] for k in keys]
                value = [k.load(qkv_ref, image, head, 2) for k in keys]
                query = _scaled(sizes, queries.load(qkv_ref, image, head, 0), scale)[0]
                gradient = queries.load(gradient_ref, image, head, 0)
                weights, total = _weights(_scores(query, key, queries, keys, bias_ref, head))
                _, d_scores = _score_gradients(weights, total, gradient, value)
                d_bias = [
                    s + jnp.where(queries.valid[:, None], d, 0) for s, d in zip(sums, d_scores)
                ]
                d_scale = sum(jnp.sum(d * _dot(query, k, 1, 1)) for d, k in zip(d_scores, key))
                return (*d_bias, sums[-1] + d_scale / scale)

            zeros = [jnp.zeros((rows, each), jnp.float32) for _, each in sizes.parts(KEY_ROWS)]
            steps = (images - group + count - 1) // count * sizes.map.windows
            sums = (*zeros, jnp.float32(0))
            # From a plain 0, `step` would be weakly typed, and Pallas cannot lower its remainders.
            *d_bias, d_scale = jax.lax.fori_loop(jnp.int32(0), steps, window, sums)
            queries = _Tokens(sizes, 0, start, rows)
            for (first, each), d in zip(sizes.parts(KEY_ROWS), d_bias):
                keys = _Tokens(sizes, 0, first, each)
                place = d_bias_ref.at[group, head, queries.index[:, None], keys.index[None, :]]
                triton.store(place, d, mask=queries.valid[:, None] & keys.valid[None, :])
            d_scale_ref[group, index, head] = d_scale


class _Tokens:
    """A part of a window's tokens.

    Attributes:
      rows: number of rows, a power of two.
      index: (rows,) index of each token in its window.
      valid: (rows,) whether there is such a token.
    """

    def __init__(self, sizes: Sizes, place, start: int, rows: int):
        self.sizes, self.rows = sizes, rows
        self.index = start + jnp.arange(rows)
        self.valid = self.index < sizes.map.tokens
        (height, width), (high, broad) = sizes.map.padded, sizes.map.window
        y = place // (width // broad) * high + self.index // broad  # in the rolled map
        x = place % (width // broad) * broad + self.index % broad
        self._regions = None
        if sizes.map.shifts:
            # Tokens from opposite edges of the map do not attend to each other.
            down, right = sizes.map.shift
            self._regions = 3 * _region(y, height, high, down) + _region(x, width, broad, right)
            y, x = (y + down) % height, (x + right) % width
        self._token = y * width + x

    def may_attend_to(self, keys: '_Tokens') -> Array:
        """Return (rows, keys.rows) bool."""
        allowed = jnp.broadcast_to(keys.valid[None, :], (self.rows, keys.rows))
        if self._regions is None:
            return allowed
        return allowed & (self._regions[:, None] == keys._regions[None, :])

    def load(self, ref, image, head, part: int) -> Array:
        """Load the queries (part 0), keys (1) or values (2) of a head: (rows, lanes)."""
        place, mask = self._place(ref, image, head, part)
        return triton.load(place, mask=mask, other=0.0)

    def store(self, ref, image, head, part: int, x: Array) -> None:
        """Store what `load` with the same arguments would load."""
        place, mask = self._place(ref, image, head, part)
        triton.store(place, x.astype(ref.dtype), mask=mask)

    def _place(self, ref, image, head, part):
        sizes, lane = self.sizes, jnp.arange(self.sizes.lanes)
        channel = part * sizes.width + head * sizes.channels + lane
        mask = self.valid[:, None] & (lane < sizes.channels)[None, :]
        return ref.at[image, self._token[:, None], channel[None, :]], mask


def _region(place: Array, side: int, window: int, shift: int) -> Array:
    """Return which of up to three regions along a side a token of the rolled map comes from."""
    return (place >= side - window).astype(jnp.int32) + (place >= side - shift).astype(jnp.int32)


def _scores(query, key, queries, keys, bias_ref, head):
    """Return the scores of a part of the queries for each part of the keys, in float32."""
    scores = []
    for part, tokens in zip(key, keys):
        place = bias_ref.at[head, queries.index[:, None], tokens.index[None, :]]
        mask = queries.valid[:, None] & tokens.valid[None, :]
        bias = triton.load(place, mask=mask, other=0.0)
        score = _dot(query, part, 1, 1) + bias
        scores.append(jnp.where(queries.may_attend_to(tokens), score, MASKED))
    return scores


def _weights(scores):
    """Return exp(score - largest score) for each part of the keys, and the sums (rows, 1)."""
    top = functools.reduce(jnp.maximum, (jnp.max(score, axis=1) for score in scores))[:, None]
    weights = [jnp.exp(score - top) for score in scores]
    return weights, sum(jnp.sum(weight, axis=1) for weight in weights)[:, None]


def _score_gradients(weights, total, gradient, value):
    """Return the softmax and the gradient of the scores, for each part of the keys."""
    weights = [weight / total for weight in weights]
    d_weights = [_dot(gradient, part, 1, 1) for part in value]
    row = sum(jnp.sum(w * d, axis=1) for w, d in zip(weights, d_weights))[:, None]
    return weights, [w * (d - row) for w, d in zip(weights, d_weights)]


def _scaled(sizes, query, scale):
    """Return the queries times the scale in the dtype of the products, and 1 / their lengths."""
    unit, lengths = _unit(sizes, query, jnp.float32)
    return (unit * scale).astype(query.dtype), lengths


def _unit(sizes, x, dtype=None):
    """Return x / length if cosine, otherwise x, in `dtype`; and 1 / length or None."""
    dtype = dtype or x.dtype
    if not sizes.cosine:
        return x.astype(dtype), None
    x = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=1), SMALLEST))[:, None]
    return (x * inverse).astype(dtype), inverse


def _unit_gradient(sizes, x, inverse, gradient):
    """Return the gradient with respect to x, given the gradient of what `_unit` returns."""
    if not sizes.cosine:
        return gradient
    unit = x.astype(jnp.float32) * inverse
    return inverse * (gradient - unit * jnp.sum(unit * gradient, axis=1)[:, None])


def _dot(x, y, x_axis, y_axis):
    exact = x.dtype == jnp.float32
    return jax.lax.dot_general(
        x,
        y,
        (((x_axis,), (y_axis,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )
