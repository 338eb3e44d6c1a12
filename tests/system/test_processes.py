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
    total, process = processes.call_in_process(add, 2, 3, description='sum')
    assert total == 5 and process != os.getpid()


def test_errors_come_back_and_a_death_is_explained():
    with pytest.raises(StageError, match='a is refused'):
        processes.call_in_process(refuse, 'a', description='sum')
    with pytest.raises(RuntimeError, match='sum: the process died.*run the same command again'):
        processes.call_in_process(die, description='sum')
