"""Attention with heads before tokens, as every module outside the towers uses it."""

import jax
import jax.numpy as jnp


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
