"""Worker processes: unique names, and a way to end them together with their parent."""

import contextlib
import multiprocessing
import os
import platform
import sys
import threading
import types
from collections.abc import Iterator


def end_with_parent() -> None:
    """Make this worker process end when its parent process ends, even if the parent was killed.

    Otherwise an orphan would still write files while the same command runs again.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
