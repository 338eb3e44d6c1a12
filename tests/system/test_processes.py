"""A function is called in another process, whose death is one sentence."""

import os
import signal

import pytest

from amuse_jax.errors import StageError
from amuse_jax.system import processes


def add(a, b):
    return a + b, os.getpid()


def refuse(name):
    raise StageError(f'{name} is refused')


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_call_returns_from_another_process():
    with processes.Process('sum', 'fewer numbers') as process:
        total, number = process.call(add, 2, 3)
        assert total == 5 and number != os.getpid()
        assert process.call(add, 3, 4) == (7, number)


def test_errors_come_back_and_a_death_is_explained():
    with processes.Process('sum', 'fewer numbers') as process:
        with pytest.raises(StageError, match='a is refused'):
            process.call(refuse, 'a')
        with pytest.raises(RuntimeError, match='sum: the process died.* with fewer numbers if'):
            process.call(die)
