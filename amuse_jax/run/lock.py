"""One run at a time in a workdir, by the library filelock.

The kernel keeps the lock and frees it when the process ends, however it ends. The text in the file
only names the process that holds the lock.

A file system without locks (Lustre without the option flock, some network and FUSE mounts) gets a
lease instead: a file that the run renews. If it has not been renewed for LEASE_SECONDS, its run is
taken to be dead, and another run may begin. A run that loses its lease ends at once.
"""

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
from absl import logging

from amuse_jax.errors import StageError
from amuse_jax.system.processes import this_process

FILE = '.lock'
LEASE_FILE = '.lease'
LEASE_SECONDS = 60.0
# The errors of a file system without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class InUse(StageError):
    """Another run uses the workdir."""


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Hold the lock of the workdir, so that no other run works in it.

    Raises:
      InUse: another run holds the lock; the message names it.
      StageError: nothing can be written into the workdir.
    """
    path = workdir / FILE
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path)
        since = time.strftime('%Y-%m-%d %H:%M:%S')
        path.write_text(f'process {this_process()} since {since} ({" ".join(sys.argv)})\n', 'utf-8')
    except filelock.Timeout as error:
        holder = path.read_text('utf-8').strip() if os.access(path, os.R_OK) else ''
        raise InUse(
            f'{workdir} is in use by {holder or "another run"}; wait until it ends, stop it, or '
            'use another --workdir'
        ) from error
    except OSError as error:
        raise StageError(
            f'{path} cannot be written ({error}); expected a --workdir in which this user may make '
            'files'
        ) from error
    try:
        yield
    finally:
        lock.release()


def _acquire(path: Path) -> filelock.BaseFileLock:
    """Return the lock, held: the kernel's, or a lease where the file system has none.

    Raises:
      Timeout: another run holds it.
    """
    # Without locks of the kernel, filelock would fall back to a file that a killed run leaves.
    lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
        return lock
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        logging.warning(
            '%s cannot be locked (%s): the file system has no locks. This run holds a lease, %s, '
            'instead: while it is renewed no other run may begin, and %.0f s after a kill another '
            'one may. With locks (Lustre: the mount option flock; NFS: without nolock) nothing has '
            'to wait.', path, error, LEASE_FILE, LEASE_SECONDS,
        )  # fmt: skip
    lease = filelock.SoftFileLease(
        path.with_name(LEASE_FILE),
        lease_duration=LEASE_SECONDS,
        on_compromise=_end,
        timeout=1.5 * LEASE_SECONDS,  # a killed run's lease ends meanwhile
    )
    lease.acquire()
    return lease


def _end(compromise: filelock.LeaseCompromise) -> None:
    """End this process, because another run may work in the workdir now."""
    print(
        f'amuse_jax: the lease {compromise.lock_file} is lost ({compromise.reason}), so another '
        'run may use the workdir; finished work is saved',
        file=sys.stderr, flush=True,
    )  # fmt: skip
    os._exit(1)
