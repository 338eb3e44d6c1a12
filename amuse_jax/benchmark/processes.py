"""Calls in fresh processes: nothing is compiled yet, and the number of cores can be limited."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from amuse_jax.system import memory
from amuse_jax.system.processes import end_with_parent


def run(function: Callable, *arguments, keep_memory: bool, one_core: bool = False) -> Any:
    """Call `function(*arguments)` in a new process and return its result.

    Args:
      function: a module-level function, because it is pickled.
      arguments: its arguments, which are pickled too.
      keep_memory: whether the process keeps freed memory instead of returning it to the kernel.
      one_core: whether the process and its threads may use only one core. Some systems cannot
        limit this; it then has no effect.
    """
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=_set_up, initargs=(keep_memory, one_core)
    ) as pool:
        return pool.submit(function, *arguments).result()


def _set_up(keep_memory: bool, one_core: bool) -> None:
    end_with_parent()
    if keep_memory:
        memory.keep_freed()
    if one_core and hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
