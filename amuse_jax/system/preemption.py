"""Preemption notices: SIGTERM means that the machine will stop in about thirty seconds.

All stages except training may be killed at any moment, so they end at once. Training saves a
checkpoint at the next step first. In both cases, running the same command again continues the work.

With several processes, JAX itself receives the signal. It tells all processes and makes them stop
at the same call of `notice_received`. All processes must therefore call it in the same order: at
the beginning of a stage, at every training step, and at every other batch. While the first process
works alone, no process calls it: the stage continues until it is killed, which does no harm.
"""

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator

from amuse_jax.system import hosts

MESSAGE = 'amuse_jax: SIGTERM: finished work is saved; run the same command again to continue'

STATUS = 128 + signal.SIGTERM  # of a process that ends by SIGTERM, as a shell reports it

_notice_received = False
_is_deferred = False
_calls = itertools.count(1)


class Preempted(Exception):
    """A preemption notice arrived, and everything that matters is saved."""


def handle_sigterm(status: int) -> None:
    """Make a preemption notice end this process, except inside `deferred`.

    With several processes this starts JAX's own handling; `notice_received` then tells of a notice.

    Args:
      status: the exit status.
    """
    if hosts.count() > 1:
        notice_received()  # JAX drops a notice that arrives before every process has asked once
        return

    def end(*_) -> None:
        global _notice_received
        _notice_received = True
        if not _is_deferred:
            os.write(2, f'{MESSAGE}\n'.encode())  # print is not safe inside a signal handler
            os._exit(status)

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Do not end the process on a notice inside this context; `notice_received` tells of it.

    Raises:
      Preempted: at the end of the context, if there was a notice.
    """
    global _is_deferred
    _is_deferred = True
    try:
        yield
    finally:
        _is_deferred = False
    if _notice_received:
        raise Preempted


def notice_received() -> bool:
    """Return whether to save and stop; the answer is the same in every process.

    All processes must call this at the same places. With several processes, a notice is reported
    only once.
    """
    if hosts.count() == 1:
        return _notice_received
    from jax.experimental import multihost_utils  # here, because workers import the stages too

    # Not the training step's number, which starts again from 0 in the next training.
    return multihost_utils.reached_preemption_sync_point(next(_calls))


def stop_on_notice() -> None:
    """Stop if there was a notice; for places where everything that matters is saved.

    All processes must call this.

    Raises:
      Preempted: there was a notice.
    """
    if notice_received():
        raise Preempted
