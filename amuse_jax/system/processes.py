"""Worker processes: unique names, and a way to end them together with their parent."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import platform
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool


def end_with_parent() -> None:
    """Make this worker process end when its parent process ends, even if the parent was killed.

    Otherwise an orphan would still write files while the same command runs again.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def call_in_process(function: Callable, *arguments, description: str):
    """Call a module-level function in a new process and return its result.

    The process can import what this one must not, such as PyTorch. It ends no later than this one.

    Args:
      function: the function.
      *arguments: its arguments.
      description: what the process does, for the message.

    Raises:
      RuntimeError: the process died.
      Any exception that `function` raises.
    """
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context('spawn'), initializer=end_with_parent
    ) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f'{description}: the process died, probably because memory ran out; run the same '
                'command again to continue, with fewer --config.data.workers if it dies again'
            ) from error


def this_process() -> str:
    """Return a name that no other process has, on this machine or on another one."""
    return f'{platform.node()}:{os.getpid()}'


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """Start processes inside this context without importing the program's main module in them.

    A spawned process would otherwise import the user's script, and a script without the guard
    `if __name__ == '__main__'` would run again.
    """
    with _LOCK:
        main = sys.modules['__main__']
        sys.modules['__main__'] = types.ModuleType('__main__')
        try:
            yield
        finally:
            sys.modules['__main__'] = main


_LOCK = threading.Lock()
