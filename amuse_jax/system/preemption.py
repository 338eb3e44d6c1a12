"""SIGTERM is a preemption notice: the machine will be gone in some thirty seconds.

What can be killed at any moment, every stage but training, ends at once. Training saves at the next
step. Either way the same command goes on from there.

With several processes JAX itself listens: it tells all of them, and has them stop at the same call
of `is_noticed`, which all make in the same order: where a stage begins, at every step of training
and at every other batch. While only the first process works nobody asks: it goes on until it is
killed, which such a stage bears at any moment.
"""

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator

from amuse_jax.system import hosts

MESSAGE = 'amuse_jax: SIGTERM: what is done so far is kept; the same command goes on from there'

_is_noticed = False
_is_deferred = False
_calls = itertools.count(1)


class Preempted(Exception):
    """There was a notice, and all that matters is saved."""


def watch(status: int) -> None:
    """From now on the notice ends this process, where that is not deferred; of several processes
    `is_noticed` tells.

    Args:
      status: to exit with.
    """
    if hosts.count() > 1:
        is_noticed()  # JAX drops a notice that comes before every process has asked
        return

    def end(*_) -> None:
        global _is_noticed
        _is_noticed = True
        if not _is_deferred:
            os.write(2, f'{MESSAGE}\n'.encode())  # a handler may interrupt whoever is printing
            os._exit(status)

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, only `is_noticed` tells of a notice.

    Raises:
      Preempted: there was one, when the work inside has ended.
    """
    global _is_deferred
    _is_deferred = True
    try:
        yield
    finally:
        _is_deferred = False
    if _is_noticed:
        raise Preempted


def is_noticed() -> bool:
    """Whether to save and stop, the same in every process; all call it at the same places.

    Of several processes each is told once.
    """
    if hosts.count() == 1:
        return _is_noticed
    from jax.experimental import multihost_utils  # not by workers, which import the stages

    # Not the step's own number, which begins anew in the next training.
    return multihost_utils.reached_preemption_sync_point(next(_calls))


def stop_if_noticed() -> None:
    """For places where all that matters is saved; all processes call it.

    Raises:
      Preempted: there was a notice.
    """
    if is_noticed():
        raise Preempted
