"""Several processes that run the same command, one per host: who is first, and who waits for whom.

What only one may do, such as writing the files of the workdir, the first one does. They need one
workdir that all of them reach. A process alone, the plain case, is the first and never waits.
"""

import itertools
import os
import sys
import traceback

from absl import logging

from amuse_jax.errors import StageError

AUTO = 'auto'
AGAIN = 69  # exit status, EX_UNAVAILABLE of sysexits.h; launches start all processes again
LONGEST_WAIT = 7 * 24 * 3600  # seconds; the first process may have videos to prepare

_index, _count = 0, 1
_waits = itertools.count()


def start(coordinator: str, process_id: int, process_count: int) -> None:
    """Joins the other processes of the run; before anything else is done with JAX.

    Args:
      coordinator: 'auto': Slurm, a TPU pod, GKE or Open MPI say who the others are; else HOST:PORT,
        at which the first process listens.
      process_id: this process's, from 0; not with 'auto'.
      process_count: how many there are; not with 'auto'.

    Raises:
      StageError: 'auto' where nothing says who the others are; numbers that cannot be; the others
        did not come.
    """
    import jax  # not by those who only want to know whether they are first

    given = () if coordinator == AUTO else (coordinator, process_count, process_id)
    try:
        jax.distributed.initialize(*given)
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
    return _index


def count() -> int:
    return _count


def is_first() -> bool:
    return _index == 0


def wait(what: str) -> None:
    """Returns when every process has come here, however long the others need.

    Args:
      what: names the place, for the messages of a process that waits in vain.
    """
    if _count == 1:
        return
    from orbax.checkpoint import multihost

    # Not a collective of the devices: those take minutes of silence for a failure.
    meet = multihost.get_barrier_sync_fn()
    meet(key=f'amuse_jax-{next(_waits)}-{what}', timeout_ms=1000 * LONGEST_WAIT)


def first_says(value: int) -> int:
    """The first process's `value` in every process."""
    if _count == 1:
        return value
    from jax.experimental import multihost_utils

    wait('agree')
    return int(multihost_utils.broadcast_one_to_all(value))


def leave(message: str, status: int = 1) -> None:
    """Ends this process with a message, without waiting for the others, who can't go on without
    it.

    Args:
      message: why.
      status: to exit with; 1: a mistake, which launches do not try again.
    """
    if _count == 1:
        print(message, file=sys.stderr)
        sys.exit(status)
    print(f'{message} (process {_index})', file=sys.stderr, flush=True)
    os._exit(status)


def leave_over(error: Exception) -> None:
    """Ends this process, one of several, over an error that nobody foresaw.

    Python's own way out would first wait minutes for the others, who wait for this one. What JAX
    raises is most often that another one is gone: then all may start again.
    """
    import jax

    traceback.print_exception(error)
    is_of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    is_out_of_memory = 'RESOURCE_EXHAUSTED' in str(error)
    status = AGAIN if is_of_jax and not is_out_of_memory else 1
    leave('amuse_jax: ended by the error above', status)
