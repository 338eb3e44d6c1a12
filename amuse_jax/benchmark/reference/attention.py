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
    """Compute Eq. 1 for every head. A query that may attend to nothing gets zeros, as in JAX.

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
        # PyTorch's kernels differ in what they return for a row without keys: zeros, or NaN.
        has_keys = mask.any(-1)[:, None, None, None]
        mask, value = mask[:, None, None, :] | ~has_keys, value.masked_fill(~has_keys, 0)
    return join_heads(functional.scaled_dot_product_attention(query, key, value, mask))


def repeat_videos(x: torch.Tensor, rows: int) -> torch.Tensor:
    """Repeat each video's row for each of its questions: (V, ...) -> (rows, ...), rows = V * Q.

    Rows that are questions already, that is, if V equals `rows`, are returned as they are.
    """
    questions = rows // len(x)
    return x if questions == 1 else x[:, None].expand(-1, questions, *x.shape[1:]).flatten(0, 1)
