"""Workarounds that make XLA's code for CPUs fast; on other platforms they do nothing."""

import math
from collections.abc import Callable

import jax
from jax import Array

from amuse_jax.models import platform

CHUNK_BYTES = 2**24  # size of a chunk's widest array: small enough to be reused from the cache
WIDE = 512  # channels; with more, weights are larger: chunks of twice the size read them less often


def compute_once(x: Array) -> Array:
    """Return x and make XLA compute it once, however many operations use it.

    Otherwise XLA computes x again inside a matrix product that uses it, or gives both to a library
    that writes every constant out at full size.
    """
    return jax.lax.optimization_barrier(x) if platform.current() == 'cpu' else x


def in_chunks(function: Callable[[Array], Array], x: Array, row_bytes: int) -> Array:
    """Return function(x), computed a few rows at a time.

    A sharded batch is not cut into chunks: chunks run one after the other, so every device would
    have to take part in every chunk.

    Args:
      function: (rows, ...) -> (rows, ...) for any number of rows, each row independent of the
        others.
      x: (b, ..., d).
      row_bytes: approximate size of the widest array that `function` computes per row.
    """
    rows = len(x)
    most = max(1, CHUNK_BYTES * (2 if x.shape[-1] > WIDE else 1) // row_bytes)
    if rows <= most or platform.current() != 'cpu' or platform.batch_is_sharded():
        return function(x)
    chunk_rows = max(math.gcd(rows, count) for count in range(1, most + 1))
    chunks = jax.lax.map(function, x.reshape(-1, chunk_rows, *x.shape[1:]))
    return chunks.reshape(rows, *chunks.shape[2:])
