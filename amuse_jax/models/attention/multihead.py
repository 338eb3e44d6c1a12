"""Attention for every module outside the towers."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from amuse_jax.models import platform
from amuse_jax.models.attention import tpu


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """[..., n, heads * c] -> [..., heads, n, c]."""
    *lead, tokens, width = x.shape
    return jnp.swapaxes(x.reshape(*lead, tokens, heads, width // heads), -2, -3)


def join_heads(x: jax.Array) -> jax.Array:
    """[..., heads, n, c] -> [..., n, heads * c]."""
    *lead, heads, tokens, width = x.shape
    return jnp.swapaxes(x, -2, -3).reshape(*lead, tokens, heads * width)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Return scaled dot-product attention, softmax(Q K^T / sqrt(c)) V.

    Leading axes broadcast. The softmax runs in float32.

    Args:
      query: [..., n, c].
      key: [..., m, c].
      value: [..., m, c].
      mask: bool, broadcastable to [..., n, m], True = may attend; None = all may.
    Returns:
      [..., n, c] in the dtype of value.
    """
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2)).astype(jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    return jnp.matmul(jax.nn.softmax(scores, axis=-1).astype(value.dtype), value)


def multihead_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    heads: int,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return multi-head attention for tokens whose heads share the channel axis.

    Leading axes broadcast; the first of them is the batch.

    Args:
      query: [..., n, heads * c].
      key, value: [..., m, heads * c].
      heads: number of heads.
      mask: [..., m] bool, True = may be attended to; None = all may.
    Returns:
      [..., n, heads * c] in the dtype of value.
    """
    if platform.current() != 'tpu':
        query, key, value = (split_heads(x, heads) for x in (query, key, value))
        mask = mask if mask is None else mask[..., None, None, :]
        return join_heads(attend(query, key, value, mask))
    lead = jnp.broadcast_shapes(query.shape[:-2], key.shape[:-2])

    def flatten_lead(array, last_axes):
        shape = array.shape[-last_axes:]
        return jnp.broadcast_to(array, (*lead, *shape)).reshape(math.prod(lead), 1, *shape)

    scale = jnp.full(heads, (query.shape[-1] // heads) ** -0.5)
    batched = [flatten_lead(x, 2) for x in (query, key, value)]
    if mask is not None:
        batched.append(flatten_lead(mask, 1))
    count = len(batched)

    def kernel(*arrays):
        query, key, value, *mask = arrays[:count]
        return tpu.attend(query, key, value, arrays[count], None, *mask)

    attended = platform.on_each_device(kernel, count, 1)(*batched, scale)
    return attended.reshape(*lead, *attended.shape[2:])


def attend_to_candidates(
    query: jax.Array, keys: Sequence[jax.Array], values: Sequence[jax.Array], heads: int
) -> jax.Array:
    """Return multi-head attention in which every token has its own few candidates.

    Token i attends to token i of every array in `keys` and `values`. Leading axes broadcast. The
    softmax runs in float32.

    Args:
      query: [..., n, heads * c].
      keys, values: one [..., n, heads * c] array per candidate.
      heads: number of heads.
    Returns:
      [..., n, heads * c] in the dtype of the values.
    """
    split, sum_channels = _by_head(query, heads)
    scale = (query.shape[-1] // heads) ** -0.5
    scores = jnp.broadcast_arrays(
        *(scale * sum_channels(split(query) * split(key)) for key in keys)
    )
    highest = functools.reduce(jnp.maximum, scores)
    weights = [jnp.exp(score - highest) for score in scores]
    sums = sum(weights)
    attended = sum(
        (weight / sums).astype(value.dtype) * split(value) for weight, value in zip(weights, values)
    )
    return attended.reshape(*attended.shape[: query.ndim - 1], -1)


def _by_head(like: jax.Array, heads: int) -> tuple[Callable, Callable]:
    """Return a function that splits the heads, and one that sums the channels of each in float32.

    On TPUs a head on its own axis would be padded to 128 channels. There the heads stay together,
    and a matrix product with zeros and ones gives each channel the sum over its head.
    """
    channels = like.shape[-1] // heads

    def split(x):
        return x.reshape(*x.shape[:-1], heads, channels)

    def sum_channels(x):
        return x.astype(jnp.float32).sum(-1, keepdims=True)

    if platform.current() != 'tpu':
        return split, sum_channels
    head = jnp.arange(like.shape[-1]) // channels
    same_head = (head[:, None] == head).astype(like.dtype)
    return lambda x: x, lambda x: jnp.matmul(x, same_head, preferred_element_type=jnp.float32)
