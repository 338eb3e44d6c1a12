"""Worker processes: unique names, and a way to end them together with their parent."""

import multiprocessing
import os
import platform
import threading


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
