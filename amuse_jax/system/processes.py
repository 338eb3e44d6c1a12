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


class Process:
    """A process that calls one function after another and ends no later than this one.

    It can import what this one must not, such as PyTorch.

    Args:
      work: what it does, such as the name of a stage, for the message when it dies.
      advice: what takes less memory, for the same message.
    """

    def __init__(self, work: str, advice: str):
        self._work, self._advice = work, advice
        self._pool = concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context('spawn'), initializer=end_with_parent
        )

    def __enter__(self) -> 'Process':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def submit(self, function: Callable, *arguments) -> concurrent.futures.Future:
        """Start a call of a module-level function; the process itself starts with the first one."""
        return self._pool.submit(function, *arguments)

    def call(self, function: Callable, *arguments):
        """Call a module-level function and return its result.

        Raises:
          RuntimeError: the process died.
          Any exception that `function` raises.
        """
        try:
            return self.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f'{self._work}: the process died, probably because memory ran out; run the same '
                f'command again to continue, with {self._advice} if it dies again'
            ) from error

    def close(self) -> None:
        """End the process after the call that it is busy with."""
        self._pool.shutdown()

    def end(self) -> None:
        """End the process without its clean-up, of which PyTorch's takes a second."""
        with contextlib.suppress(BrokenProcessPool):
            self.submit(os._exit, 0)
        self.close()


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
