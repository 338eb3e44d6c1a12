"""Attention inside the windows of a map of tokens, and its position bias.

Swin (Liu et al. 2021) and Swin-V2 (Liu et al. 2022) share this code. Tokens have the layout
(batch, height * width, channels); window_map.py says how they are cut into windows.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import dense, platform, remat
from amuse_jax.models.attention import gpu, multihead, tpu
from amuse_jax.models.attention.bounds import MASKED, SMALLEST
from amuse_jax.models.window_map import WindowMap, shift_mask


def relative_position_bias(table: Array, window: tuple[int, int]) -> Array:
    """Expand a table of one value per offset to one value per pair of tokens in a window.

    An offset is the query's position minus the key's. The table is sorted by row offset, then by
    column offset, the most negative first, as in the originals. The function only copies blocks: a
    gather of as many elements, and the scatter in its gradient, would cost more than the attention
    itself.

    Args:
      table: (heads, (2h-1) * (2w-1)).
      window: height h and width w of the window, in tokens.
    Returns:
      (heads, h*w, h*w), by query and key.
    """
    high, broad = window
    x = _toeplitz(table.reshape(-1, 2 * high - 1, 2 * broad - 1))  # (heads, 2h-1, w, w)
    x = _toeplitz(jnp.moveaxis(x, 1, -1))  # (heads, w, w, h, h)
    return x.transpose(0, 3, 1, 4, 2).reshape(-1, high * broad, high * broad)


def _toeplitz(x: Array) -> Array:
    """(..., 2n-1) -> (..., n, n) with [q, k] = x[q - k + n - 1].

    Repeat x with period 2n and cut the result into rows of length 2n - 1: each row then begins one
    element earlier in x than the row before.
    """
    *lead, length = x.shape
    n = (length + 1) // 2
    period = jnp.pad(jnp.flip(x, -1), [(0, 0)] * len(lead) + [(0, 1)])
    rows = jnp.broadcast_to(period[..., None, :], (*lead, n, 2 * n)).reshape(*lead, -1)
    return rows[..., : n * length].reshape(*lead, n, length)[..., n - 1 :]


@jax.custom_vjp
def add_bias(scores: Array, bias: Array) -> Array:
    """Return scores (b, ...) + bias (...).

    The gradient of the bias is computed as a matrix product with ones. As a sum over the first axis
    it takes XLA ten times as long on a CPU.
    """
    return scores + bias


def _add_bias_backward(_, gradient: Array) -> tuple[Array, Array]:
    ones = jnp.ones(len(gradient), gradient.dtype)
    return gradient, jnp.tensordot(ones, gradient, 1)


add_bias.defvjp(lambda scores, bias: (scores + bias, None), _add_bias_backward)


def self_attention(
    tokens: Array,
    kernel: Array,
    kernel_bias: Array,
    bias: Array,
    scale: Array,
    window_map: WindowMap,
    cosine: bool = False,
) -> Array:
    """Let the tokens of each window of a map attend to each other; see `attention`.

    Args:
      tokens: (b, h*w, d) of a map that is neither padded nor rolled.
      kernel, kernel_bias: (d, 3d) and (3d,), the projection to queries, keys and values.
      bias, scale, window_map, cosine: see `attention`.
    Returns:
      (b, h*w, d) in the dtype of tokens.
    """
    tokens = window_map.pad(tokens)
    if platform.current() == 'gpu' and window_map.tokens <= gpu.MAX_TOKENS:

        def attend(qkv, bias, scale):
            return gpu.attend(qkv, bias, scale, window_map, cosine)

        qkv = project(tokens, kernel, kernel_bias)
        return window_map.crop(platform.on_each_device(attend, 1, 2)(qkv, bias, scale))
    tokens = window_map.roll(tokens)
    if platform.current() == 'tpu':
        # Its kernel takes three arrays. Three products compute them, so that no result is split.
        parts = zip(jnp.split(kernel, 3, axis=1), jnp.split(kernel_bias, 3))
        qkv = [project(tokens, *part) for part in parts]
    else:
        qkv = jnp.split(project(tokens, kernel, kernel_bias), 3, axis=-1)
    x = attention(*qkv, bias, scale, window_map, cosine)
    return window_map.crop(window_map.roll(x, -1))


def project(tokens: Array, kernel: Array, bias: Array) -> Array:
    """Return what a layer keeps for the gradient of its attention: (..., d) -> (..., d')."""
    x = dense.matmul(tokens, kernel.astype(tokens.dtype)) + bias.astype(tokens.dtype)
    return checkpoint_name(x, remat.QKV)


def attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array,
    scale: Array,
    window_map: WindowMap,
    cosine: bool = False,
) -> Array:
    """Return softmax(scale * query key^T + bias) value inside each window.

    Scores and softmax are float32. Differs from the originals for tokens of a shifted window that
    must not attend to each other: they add -100 (Hugging Face's Swin-V2: -200) to the scores, here
    the weight is zero.

    Args:
      query, key, value: (b, padded h*w, heads * c) of a padded and rolled map.
      bias: (heads, m, m) float32, relative position bias of the m tokens of a window.
      scale: (heads,) float32.
      window_map: how the map is cut into windows, and whether they are shifted.
      cosine: whether to divide queries and keys by their lengths first.
    Returns:
      (b, padded h*w, heads * c) in the dtype of value.
    """
    mask = jnp.asarray(shift_mask(window_map)) if window_map.shifts else None
    attend = _attend_by_kernel if platform.current() == 'tpu' else _attend
    return attend(query, key, value, bias, scale, window_map, mask, cosine)


def _attend(query, key, value, bias, scale, window_map, mask, cosine):
    dtype, heads = value.dtype, len(bias)
    query, key, value = (window_map.split(x, heads) for x in (query, key, value))
    if cosine:
        query, key = unit(query), unit(key).astype(dtype)
    query = (query * scale[:, None, None]).astype(dtype)
    scores = add_bias(multihead.scores(query, key), bias)
    if mask is not None:
        windows = scores.reshape(-1, window_map.windows, *scores.shape[1:])
        windows = jnp.where(mask[:, None], windows, MASKED)
        scores = windows.reshape(scores.shape)
    return window_map.join(multihead.weighted_mean(scores, value))


def _attend_by_kernel(query, key, value, bias, scale, window_map, mask, cosine):
    shape = len(query), window_map.windows, window_map.tokens, query.shape[-1]
    query, key, value = (window_map.split(x, 1).reshape(shape) for x in (query, key, value))
    bias = bias[None]
    if mask is not None:
        bias = jnp.where(mask[:, None], bias, MASKED)

    def kernel(query, key, value, scale, bias):
        return tpu.attend(query, key, value, scale, bias, cosine=cosine)

    x = platform.on_each_device(kernel, 3, 2)(query, key, value, scale, bias)
    return window_map.join(x.reshape(-1, 1, *shape[2:]))


def unit(x: Array) -> Array:
    """Divide x by its length along the last axis, in float32. Zeros have finite gradients."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), SMALLEST))
