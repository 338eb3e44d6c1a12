import contextlib
import errno
import fcntl
import os
import sys

import pytest

from amuse_jax.errors import StageError
from amuse_jax.run import lock
from amuse_jax.system.processes import this_process
from tests.paths import ROOT
from tests.training import processes


def test_a_second_holder_is_refused_and_told_who_has_it(tmp_path):
    with lock.held(tmp_path / 'run'):
        with pytest.raises(StageError, match=f'in use by process {this_process()} since'):
            with lock.held(tmp_path / 'run'):
                raise AssertionError('both hold it')
        with lock.held(tmp_path / 'other'):
            pass
    with lock.held(tmp_path / 'run'):
        pass


# Holds the lock of the folder until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from amuse_jax.run import lock
with lock.held(Path(sys.argv[1])):
    print('held', flush=True)
    time.sleep(999)
"""
WITHOUT_LOCKS = """
import errno, fcntl
from amuse_jax.run import lock
def flock(*_): raise OSError(errno.ENOLCK, 'no locks')
fcntl.flock = flock
lock.LEASE_SECONDS = 1.0
"""


@contextlib.contextmanager
def other_process(folder, code=HOLDER):
    """A process that holds the lock of the folder; it is killed at the end."""
    holder = processes.start([sys.executable, '-c', code, folder], folder / 'log', cwd=ROOT)
    try:
        processes.wait_until(lambda: 'held' in holder.log.read_text(), [holder])
        yield holder
    finally:
        holder.kill()
        holder.wait()


def test_a_killed_process_leaves_no_lock(tmp_path):
    with other_process(tmp_path) as holder:
        with pytest.raises(StageError, match=f':{holder.pid} since'), lock.held(tmp_path):
            raise AssertionError('both hold it')
    with lock.held(tmp_path):
        assert f':{os.getpid()} since' in (tmp_path / lock.FILE).read_text()


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def without_locks(request, monkeypatch):
    """Such as Lustre mounted without flock, or NFS without its lock service."""

    def flock(_descriptor, _operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, 'flock', flock)
    monkeypatch.setattr(lock, 'LEASE_SECONDS', 1.0)
    return os.strerror(request.param)


def test_on_a_file_system_without_locks_a_run_holds_a_lease(tmp_path, without_locks, caplog):
    with lock.held(tmp_path / 'run'):
        assert without_locks in caplog.text and 'has no locks' in caplog.text
        with pytest.raises(StageError, match=f'in use by process {this_process()} since'):
            with lock.held(tmp_path / 'run'):
                raise AssertionError('both hold it')
    with lock.held(tmp_path / 'run'):
        pass


def test_a_killed_run_leaves_a_lease_that_ends(tmp_path, without_locks):
    with other_process(tmp_path, WITHOUT_LOCKS + HOLDER) as holder:
        with pytest.raises(StageError, match=f':{holder.pid} since'), lock.held(tmp_path):
            raise AssertionError('both hold it')
    with lock.held(tmp_path):
        pass


def test_a_run_that_loses_its_lease_ends(tmp_path):
    with other_process(tmp_path, WITHOUT_LOCKS + HOLDER) as holder:
        (tmp_path / lock.LEASE_FILE).unlink()
        assert holder.wait(30) == 1
    assert 'amuse_jax: the lease' in holder.log.read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_workdir_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / 'run').mkdir(mode=0o555)
    with pytest.raises(StageError, match=r'run/\.lock cannot be written .*Permission denied'):
        with lock.held(tmp_path / 'run'):
            raise AssertionError('held')


def test_a_workdir_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / 'run').write_text('')
    with pytest.raises(StageError, match=r'run/\.lock cannot be written'):
        with lock.held(tmp_path / 'run'):
            raise AssertionError('held')


def test_a_refused_run_leaves_the_holders_name(tmp_path):
    with lock.held(tmp_path):
        before = (tmp_path / lock.FILE).read_text()
        with pytest.raises(StageError), lock.held(tmp_path):
            raise AssertionError('both hold it')
        assert (tmp_path / lock.FILE).read_text() == before != ''
