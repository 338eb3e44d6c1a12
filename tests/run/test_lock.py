import os
import signal
import subprocess
import sys

import pytest

from amuse_jax.errors import StageError
from amuse_jax.run import lock
from amuse_jax.system.processes import this_process
from tests.paths import ROOT


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
    code += "with lock.held(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    command = [sys.executable, '-c', code, tmp_path]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert holder.stdout.readline() == b'held\n'
        with pytest.raises(StageError, match=f':{holder.pid} since'), lock.held(tmp_path):
            raise AssertionError('both hold it')
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with lock.held(tmp_path):
        assert f':{os.getpid()} since' in (tmp_path / lock.FILE).read_text()
