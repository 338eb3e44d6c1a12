"""Multi-head attention over tokens whose heads lie side by side."""

import torch
from torch.nn import functional


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(..., n, heads * c) -> (..., heads, n, c)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """(..., heads, n, c) -> (..., n, heads * c)."""
    return x.transpose(-2, -3).flatten(-2)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Eq. 1 for every head: (b, n, d), (b, m, d), (b, m, d) -> (b, n, d).

    Args:
      mask: (b, m) bool, False = nothing attends to it.
    """
    query, key, value = (split_heads(x, heads) for x in (query, key, value))
    if mask is not None:
        mask = mask[:, None, None, :]
    return join_heads(functional.scaled_dot_product_attention(query, key, value, mask))
