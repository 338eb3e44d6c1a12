"""What XLA's code for CPUs needs to be fast, and no other platform does.

Which platform it is for is known when a program is lowered, not when it is traced: a program for a
TPU may be compiled on a host without one.
"""

import math
from collections.abc import Callable

import jax
from jax import Array

CHUNK_BYTES = 2**24  # of the widest array: what is made of it is used again while in the cache


def apart(x: Array) -> Array:
    """x, computed once, whatever uses it.

    XLA would compute it again inside a matrix product that takes it, or hand both to a library
    that writes every constant out at full size.
    """
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)


def in_chunks(function: Callable[[Array], Array], x: Array, row_bytes: int) -> Array:
    """function(x) for a function of each row by itself, a few rows at a time.

    Args:
      function: (rows, ...) -> (rows, ...), for any number of rows.
      x: (b, ...).
      row_bytes: of the widest array that it makes of a row.
    """
    rows = len(x)
    at_once = max(math.gcd(rows, n) for n in range(1, max(1, CHUNK_BYTES // row_bytes) + 1))
    if at_once == rows:
        return function(x)

    def by_chunks(x):
        found = jax.lax.map(function, x.reshape(-1, at_once, *x.shape[1:]))
        return found.reshape(rows, *found.shape[2:])

    return jax.lax.platform_dependent(x, cpu=by_chunks, default=function)
