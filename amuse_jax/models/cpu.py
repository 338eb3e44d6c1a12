"""What XLA's code for CPUs needs to be fast, and no other platform does."""

import math
from collections.abc import Callable

import jax
from jax import Array

from amuse_jax.models import platform

CHUNK_BYTES = 2**24  # of the widest array: what is made of it is used again while in the cache
WIDE = 512  # channels; beyond, weights are larger, and twice as many bytes share reading them


def apart(x: Array) -> Array:
    """x, computed once, whatever uses it.

    XLA would compute it again inside a matrix product that takes it, or hand both to a library
    that writes every constant out at full size.
    """
    return jax.lax.optimization_barrier(x) if platform.current() == 'cpu' else x


def in_chunks(function: Callable[[Array], Array], x: Array, row_bytes: int) -> Array:
    """function(x) for a function of each row by itself, a few rows at a time.

    Not where devices share the rows out: one after the other, each chunk would be everyone's.

    Args:
      function: (rows, ...) -> (rows, ...), for any number of rows.
      x: (b, ..., d).
      row_bytes: of the widest array that it makes of a row, about.
    """
    rows = len(x)
    most = max(1, CHUNK_BYTES * (2 if x.shape[-1] > WIDE else 1) // row_bytes)
    if rows <= most or platform.current() != 'cpu' or platform.is_shared():
        return function(x)
    at_once = max(math.gcd(rows, count) for count in range(1, most + 1))
    found = jax.lax.map(function, x.reshape(-1, at_once, *x.shape[1:]))
    return found.reshape(rows, *found.shape[2:])
