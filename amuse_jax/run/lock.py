"""One run at a time in a workdir, by the library filelock.

The kernel keeps the lock and frees it when the process ends, however it ends. The text in the file
only names the process that holds the lock.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from amuse_jax.errors import StageError
from amuse_jax.system.processes import this_process

FILE = '.lock'


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Hold the lock of the workdir, so that no other run works in it.

    Raises:
      StageError: another run holds the lock, which the message names, or the file system has no
        locks.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / FILE
    # Without locks of the kernel, filelock would fall back to a file that a killed run leaves.
    lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        holder = path.read_text('utf-8').strip() or 'another run'
        raise StageError(
            f'{workdir} is in use by {holder}; wait until it ends, stop it, or use another '
            '--workdir'
        ) from error
    except (OSError, NotImplementedError) as error:
        raise StageError(
            f'{path} cannot be locked ({error}), so two runs could destroy the work of each '
            'other; expected a file system with file locks: mount it with locks (Lustre: the '
            'option flock; NFS: without nolock), or use a --workdir on another one'
        ) from error
    try:
        since = time.strftime('%Y-%m-%d %H:%M:%S')
        path.write_text(f'process {this_process()} since {since} ({" ".join(sys.argv)})\n', 'utf-8')
        yield
    finally:
        lock.release()
