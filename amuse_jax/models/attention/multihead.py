"""Attention between sets of tokens: the plain definition, and the choice of its kernel."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from amuse_jax.models import platform
from amuse_jax.models.attention import tpu
from amuse_jax.models.attention.bounds import MASKED

CUDNN_DTYPES = jnp.bfloat16, jnp.float16
CUDNN_CHANNELS = 128  # most channels of a head on every card that cuDNN's attention runs on


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """[..., n, heads * c] -> [..., heads, n, c]."""
    *lead, tokens, width = x.shape
    return jnp.swapaxes(x.reshape(*lead, tokens, heads, width // heads), -2, -3)


def join_heads(x: jax.Array) -> jax.Array:
    """[..., heads, n, c] -> [..., n, heads * c]."""
    *lead, heads, tokens, width = x.shape
    return jnp.swapaxes(x, -2, -3).reshape(*lead, tokens, heads * width)


@jax.custom_vjp
def scores(query: jax.Array, key: jax.Array) -> jax.Array:
    """Return Q K^T in float32: [..., n, c], [..., m, c] -> [..., n, m].

    Its gradient multiplies in the dtype of query and key. JAX's own would multiply float32 scores,
    many times slower where these are bfloat16.
    """
    return jnp.matmul(query, jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32)


def _scores_backward(residuals, gradient):
    query, key = residuals
    gradient = gradient.astype(query.dtype)
    d_query = jnp.matmul(gradient, key)
    d_key = jnp.matmul(jnp.swapaxes(gradient, -1, -2), query)
    return _sum_to(d_query, query.shape), _sum_to(d_key, key.shape)


def _sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sum x over the axes along which an array of this shape was broadcast."""
    x = x.sum(tuple(range(x.ndim - len(shape))))
    axes = tuple(axis for axis, (new, old) in enumerate(zip(x.shape, shape)) if new != old)
    return x.sum(axes, keepdims=True) if axes else x


scores.defvjp(lambda query, key: (scores(query, key), (query, key)), _scores_backward)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Return scaled dot-product attention, softmax(Q K^T / sqrt(c)) V: the plain definition.

    Leading axes broadcast. Scores and softmax are float32. A query that may attend to nothing gets
    zeros.

    Args:
      query: [..., n, c].
      key: [..., m, c].
      value: [..., m, c].
      mask: bool, broadcastable to [..., n, m], True = may attend; None = all may.
    Returns:
      [..., n, c] in the dtype of value.
    """
    return weighted_mean(scores(query, key) * query.shape[-1] ** -0.5, value, mask)


def weighted_mean(logits: jax.Array, value: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Return softmax(logits) V; see `attend`.

    The product is divided by the sum of its weights. To divide the weights would touch m / c times
    as many numbers, and takes almost half of a window's attention on CPUs.

    Args:
      logits: [..., n, m] float32.
      value, mask: see `attend`.
    """
    if mask is not None:
        logits = jnp.where(mask, logits, MASKED)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    if mask is not None:
        weights = jnp.where(mask, weights, 0)
    total = weights.sum(axis=-1, keepdims=True)
    if mask is not None:
        total = jnp.where(total > 0, total, 1)
    return (jnp.matmul(weights.astype(value.dtype), value) / total).astype(value.dtype)


def attend_heads(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    heads: int,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return multi-head attention for tokens whose heads share the channel axis; see `attend`.

    Leading axes broadcast; the first of them is the batch.

    Args:
      query: [..., n, heads * c].
      key, value: [..., m, heads * c].
      heads: number of heads.
      mask: [..., m] bool, True = may be attended to; None = all may.
    Returns:
      [..., n, heads * c] in the dtype of value.
    """
    backend = _backend(query.dtype, query.shape[-1] // heads)
    if backend is None:
        query, key, value = (split_heads(x, heads) for x in (query, key, value))
        mask = mask if mask is None else mask[..., None, None, :]
        return join_heads(attend(query, key, value, mask))

    lead = jnp.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    if mask is not None:  # cuDNN would attend uniformly to keys that are all masked
        value = jnp.where(mask.any(-1)[..., None, None], value, 0)
        lead = jnp.broadcast_shapes(lead, mask.shape[:-1])

    def flatten_lead(array, last_axes):
        shape = array.shape[-last_axes:]
        return jnp.broadcast_to(array, (*lead, *shape)).reshape(math.prod(lead), *shape)

    batched = [flatten_lead(x, 2) for x in (query, key, value)]
    if mask is not None:
        batched.append(flatten_lead(mask, 1))
    attended = platform.on_each_device(functools.partial(backend, heads), len(batched), 0)(*batched)
    return attended.reshape(*lead, *attended.shape[1:])


def _backend(dtype: jnp.dtype, channels: int) -> Callable | None:
    """Return the kernel for heads of so many channels, or None for the plain path."""
    if platform.current() == 'tpu':
        return _attend_by_kernel
    serves = dtype in CUDNN_DTYPES and channels % 8 == 0 and channels <= CUDNN_CHANNELS
    return _attend_by_cudnn if platform.current() == 'gpu' and serves else None


def _attend_by_kernel(heads, *batched):
    query, key, value, *mask = (x[:, None] for x in batched)
    scale = jnp.full(heads, (query.shape[-1] // heads) ** -0.5)
    return tpu.attend(query, key, value, scale, None, *mask)[:, 0]


def _attend_by_cudnn(heads, query, key, value, mask=None):
    rows, keys = query.shape[1], key.shape[1]
    if rows % 2 or keys % 2:  # cuDNN's gradient takes only even numbers
        mask = jnp.ones(key.shape[:2], bool) if mask is None else mask
        query, key, value = (
            jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0))) for x in (query, key, value)
        )
        mask = jnp.pad(mask, ((0, 0), (0, keys % 2)))
    if mask is not None:
        shape = len(mask), 1, query.shape[1], key.shape[1]
        mask = jnp.broadcast_to(mask[:, None, None, :], shape)
    split = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    attended = jax.nn.dot_product_attention(*split, mask=mask, implementation='cudnn')
    return attended.reshape(query.shape)[:, :rows]
