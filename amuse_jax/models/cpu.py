"""What XLA's code for CPUs needs to be fast, and no other platform does.

Asked while a program is traced, of the platform that JAX runs on. (`jax.lax.platform_dependent`
asks when it is lowered, but its gradient keeps what either way needs.) Who compiles for another
platform says so with `compiling_for`.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable

import jax
from jax import Array

CHUNK_BYTES = 2**24  # of the widest array: what is made of it is used again while in the cache
_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar('platform', default=None)


@contextlib.contextmanager
def compiling_for(platform: str):
    """Inside, programs are traced for 'cpu', 'gpu' or 'tpu', whatever JAX runs on."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def is_target() -> bool:
    """Whether what is traced now will run on a CPU."""
    return (_platform.get() or jax.default_backend()) == 'cpu'


def apart(x: Array) -> Array:
    """x, computed once, whatever uses it.

    XLA would compute it again inside a matrix product that takes it, or hand both to a library
    that writes every constant out at full size.
    """
    return jax.lax.optimization_barrier(x) if is_target() else x


def in_chunks(function: Callable[[Array], Array], x: Array, row_bytes: int) -> Array:
    """function(x) for a function of each row by itself, a few rows at a time.

    Args:
      function: (rows, ...) -> (rows, ...), for any number of rows.
      x: (b, ...).
      row_bytes: of the widest array that it makes of a row.
    """
    rows = len(x)
    most = max(1, CHUNK_BYTES // row_bytes)
    if rows <= most or not is_target():
        return function(x)
    at_once = max(math.gcd(rows, count) for count in range(1, most + 1))
    found = jax.lax.map(function, x.reshape(-1, at_once, *x.shape[1:]))
    return found.reshape(rows, *found.shape[2:])
