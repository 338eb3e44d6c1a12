"""Multi-head attention; the heads are consecutive slices of a token's channels."""

import torch
from torch.nn import functional


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Reshape (..., n, heads * c) to (..., heads, n, c)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """Reshape (..., heads, n, c) to (..., n, heads * c)."""
    return x.transpose(-2, -3).flatten(-2)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute Eq. 1 for every head.

    Args:
      query: (b, n, d).
      key: (b, m, d).
      value: (b, m, d).
      heads: the number of heads.
      mask: (b, m) bool; no query attends to a key that is False.

    Returns:
      (b, n, d).
    """
    query, key, value = (split_heads(x, heads) for x in (query, key, value))
    if mask is not None:
        mask = mask[:, None, None, :]
    return join_heads(functional.scaled_dot_product_attention(query, key, value, mask))
