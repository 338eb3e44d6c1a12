"""Coordination of several processes that run the same command, one per host.

The first process alone does what must happen once, such as writing files into the workdir. All
processes need one workdir that each of them can reach. A single process, which is the usual case,
counts as the first one and never waits.
"""

import itertools
import os
import socket
import sys
import traceback
import zlib

from absl import logging

from amuse_jax.errors import StageError

AUTO = 'auto'
RESTART_STATUS = 69  # EX_UNAVAILABLE of sysexits.h; launch scripts then restart all processes
BARRIER_SECONDS = 7 * 24 * 3600  # long, because the first process may have videos to prepare

_index, _count = 0, 1
_barriers = itertools.count()


def initialize(coordinator: str, process_id: int, process_count: int) -> None:
    """Connect this process with the other processes of the run.

    Call this before any other use of JAX.

    Args:
      coordinator: HOST:PORT, where the first process listens; or 'auto', which takes the addresses
        from Slurm, a TPU pod, GKE or Open MPI.
      process_id: the number of this process, from 0; ignored with 'auto'.
      process_count: the number of processes; ignored with 'auto'.

    Raises:
      StageError: 'auto' finds no such environment, the numbers are impossible, or the other
        processes did not connect in time.
    """
    import jax  # here, because many callers only ask `is_first`

    arguments = () if coordinator == AUTO else (coordinator, process_count, process_id)
    try:
        jax.distributed.initialize(*arguments)
    except (ValueError, RuntimeError, IndexError) as error:
        raise StageError(
            f'--coordinator={coordinator} --process_id={process_id} '
            f'--process_count={process_count}: the processes could not join ({error}); start one '
            'process for each number from 0, with HOST:PORT of the first, or use auto under Slurm, '
            'on a TPU pod, in GKE or under Open MPI'
        ) from error
    global _index, _count
    _index, _count = jax.process_index(), jax.process_count()
    logging.info(
        'process %d of %d: %d of %d devices', _index, _count, jax.local_device_count(),
        jax.device_count(),
    )  # fmt: skip


def index() -> int:
    """Return the number of this process, from 0."""
    return _index


def count() -> int:
    """Return the number of processes."""
    return _count


def is_first() -> bool:
    """Return whether this is the first process, or the only one."""
    return _index == 0


def barrier(name: str) -> None:
    """Wait until every process has called this function, however long that takes.

    Args:
      name: the place in the program, for the message of a process that waits in vain.
    """
    if _count == 1:
        return
    from orbax.checkpoint import multihost

    # Not a collective of the devices: after some silent minutes these report a failure.
    synchronize = multihost.get_barrier_sync_fn()
    synchronize(key=f'amuse_jax-{next(_barriers)}-{name}', timeout_ms=1000 * BARRIER_SECONDS)


def broadcast_from_first(value: int) -> int:
    """Return, in every process, the `value` of the first process."""
    if _count == 1:
        return value
    from jax.experimental import multihost_utils

    barrier('agree')
    return int(multihost_utils.broadcast_one_to_all(value))


def largest(value: int) -> int:
    """Return, in every process, the largest `value` of all processes."""
    return max(_gather(value))


def count_on_this_host() -> int:
    """Return the number of processes that run on this host."""
    name = zlib.crc32(socket.gethostname().encode())
    return _gather(name).count(name)


def _gather(value: int) -> list[int]:
    """Return the `value` of every process, from 0 to 2**32 - 1."""
    if _count == 1:
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    barrier('gather')
    return multihost_utils.process_allgather(np.array(value, np.uint32)).tolist()


def exit_at_once(message: str, status: int = 1) -> None:
    """End this process with a message, without waiting for the others.

    The others cannot continue without this process.

    Args:
      message: the reason, printed to stderr.
      status: the exit status; 1 means an error that launch scripts do not retry.
    """
    if _count == 1:
        print(message, file=sys.stderr)
        sys.exit(status)
    print(f'{message} (process {_index})', file=sys.stderr, flush=True)
    os._exit(status)


def exit_on_error(error: Exception) -> None:
    """End this process, one of several, after an unexpected error.

    Python's normal exit would first wait minutes for the other processes, which wait for this one.
    Most errors that JAX raises here mean that another process is gone. The status is then
    `RESTART_STATUS`, so that launch scripts start all processes again.
    """
    import jax

    traceback.print_exception(error)
    is_jax_error = isinstance(error, jax.errors.JaxRuntimeError)
    is_out_of_memory = 'RESOURCE_EXHAUSTED' in str(error)
    status = RESTART_STATUS if is_jax_error and not is_out_of_memory else 1
    exit_at_once('amuse_jax: ended by the error above', status)
