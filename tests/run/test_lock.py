import errno
import fcntl
import os
import signal
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


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = 'import sys, time\nfrom pathlib import Path\nfrom amuse_jax.run import lock\n'
    code += "with lock.held(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(999)"
    command = [sys.executable, '-c', code, tmp_path]
    holder = processes.start(command, tmp_path / 'log', cwd=ROOT)
    try:
        processes.wait_until(lambda: 'held' in holder.log.read_text(), [holder])
        with pytest.raises(StageError, match=f':{holder.pid} since'), lock.held(tmp_path):
            raise AssertionError('both hold it')
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with lock.held(tmp_path):
        assert f':{os.getpid()} since' in (tmp_path / lock.FILE).read_text()


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_sentence(tmp_path, monkeypatch, code):
    """Such as Lustre mounted without flock, or NFS without its lock service."""

    def flock(_descriptor, _operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'flock', flock)
    message = rf'{tmp_path}/\.lock cannot be locked .*{os.strerror(code)}.* use a --workdir on'
    with pytest.raises(StageError, match=message), lock.held(tmp_path):
        raise AssertionError('held without a lock')


def test_a_refused_run_leaves_the_holders_name(tmp_path):
    with lock.held(tmp_path):
        before = (tmp_path / lock.FILE).read_text()
        with pytest.raises(StageError), lock.held(tmp_path):
            raise AssertionError('both hold it')
        assert (tmp_path / lock.FILE).read_text() == before != ''
