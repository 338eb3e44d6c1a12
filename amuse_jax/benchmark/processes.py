"""Functions in fresh processes: first runs that are first, and one core that is one core."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from amuse_jax.system import memory
from amuse_jax.system.processes import end_with_parent


def run(function: Callable, *arguments, keep_memory: bool, one_core: bool = False) -> Any:
    """`function(*arguments)` in a process of its own.

    Args:
      function: a module's own; it and everything else travels to the process.
      keep_memory: whether that process keeps freed memory.
      one_core: whether it, threads and all, may use one core only (where the system can say so).
    """
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=_begin, initargs=(keep_memory, one_core)
    ) as pool:
        return pool.submit(function, *arguments).result()


def _begin(keep_memory: bool, one_core: bool) -> None:
    end_with_parent()
    if keep_memory:
        memory.keep_freed()
    if one_core and hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
