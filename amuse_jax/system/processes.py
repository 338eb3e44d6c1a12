"""Worker processes: their names, and their end when the main process is gone."""

import multiprocessing
import os
import platform
import threading


def end_with_parent() -> None:
    """Make this worker process end when its parent process ends, even if the parent was killed.

    Otherwise an orphan would go on writing while the same command is started again.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def this_process() -> str:
    """Return a name that no other process has, on this machine or another one."""
    return f'{platform.node()}:{os.getpid()}'
