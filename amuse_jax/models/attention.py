"""Attention, as every module outside the towers uses it."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from amuse_jax.models import attention_kernel, platform


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
    """Scaled dot-product attention, softmax(Q K^T / sqrt(c)) V; leading axes broadcast.

    Args:
      query: [..., n, c].
      key: [..., m, c].
      value: [..., m, c].
      mask: bool, broadcastable to [..., n, m], True = may attend; None: everything.
    Returns:
      [..., n, c] in value's dtype; the softmax runs in float32.
    """
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2)).astype(jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    return jnp.matmul(jax.nn.softmax(scores, axis=-1).astype(value.dtype), value)


def exchange(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    heads: int,
    mask: jax.Array | None = None,
) -> jax.Array:
    """`attend` for tokens whose heads are not split; leading axes broadcast, the first is a batch.

    Args:
      query: [..., n, heads * c].
      key, value: [..., m, heads * c].
      mask: [..., m] bool, True = may be attended to; None: everything.
    Returns:
      [..., n, heads * c] in value's dtype.
    """
    if platform.current() != 'tpu':
        query, key, value = (split_heads(x, heads) for x in (query, key, value))
        mask = mask if mask is None else mask[..., None, None, :]
        return join_heads(attend(query, key, value, mask))
    lead = jnp.broadcast_shapes(query.shape[:-2], key.shape[:-2])

    def flat(array, own):
        whole = jnp.broadcast_to(array, (*lead, *array.shape[-own:]))
        return whole.reshape(math.prod(lead), 1, *array.shape[-own:])

    scale = jnp.full(heads, (query.shape[-1] // heads) ** -0.5)
    batched = [flat(query, 2), flat(key, 2), flat(value, 2)]
    if mask is not None:
        batched.append(flat(mask, 1))
    count = len(batched)

    def kernel(*arrays):
        query, key, value, *mask = arrays[:count]
        return attention_kernel.attend(query, key, value, arrays[count], None, *mask)

    found = platform.on_each_device(kernel, count, 1)(*batched, scale)
    return found.reshape(*lead, *found.shape[2:])


def choose(
    query: jax.Array, keys: Sequence[jax.Array], values: Sequence[jax.Array], heads: int
) -> jax.Array:
    """Attention of every token over a few candidates of its own, one of each list.

    Args:
      query: [..., n, heads * c].
      keys, values: of the candidates, [..., n, heads * c] each; leading axes broadcast.
    Returns:
      [..., n, heads * c] in the values' dtype; the softmax runs in float32.
    """
    split, total = _by_head(query, heads)
    scale = (query.shape[-1] // heads) ** -0.5
    scores = jnp.broadcast_arrays(*(scale * total(split(query) * split(key)) for key in keys))
    highest = functools.reduce(jnp.maximum, scores)
    weights = [jnp.exp(score - highest) for score in scores]
    sums = sum(weights)
    chosen = sum(
        (weight / sums).astype(value.dtype) * split(value) for weight, value in zip(weights, values)
    )
    return chosen.reshape(*chosen.shape[: query.ndim - 1], -1)


def _by_head(like: jax.Array, heads: int) -> tuple[Callable, Callable]:
    """Functions that tell heads apart, and that sum over the channels of each in float32.

    On TPUs heads on an axis of their own would be padded to 128 channels. There they stay together,
    and a product with a matrix of zeros and ones gives each channel the sum over its head.
    """
    channels = like.shape[-1] // heads

    def split(x):
        return x.reshape(*x.shape[:-1], heads, channels)

    def total(x):
        return x.astype(jnp.float32).sum(-1, keepdims=True)

    if platform.current() != 'tpu':
        return split, total
    head = jnp.arange(like.shape[-1]) // channels
    same = (head[:, None] == head).astype(like.dtype)
    return lambda x: x, lambda x: jnp.matmul(x, same, preferred_element_type=jnp.float32)
