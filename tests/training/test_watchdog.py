"""A watchdog ends a stuck process even if the disk hangs or fails."""

import os
import subprocess
import sys

import pytest

from amuse_jax.training import watchdog
from tests.training import processes

# One of two processes; it reaches a place and stays there.
STUCK = """
import sys, time
from pathlib import Path
from amuse_jax.system import hosts
from amuse_jax.training.watchdog import Watchdog

hosts._count = 2
with Watchdog(Path(sys.argv[1]), 1.0, []) as watching:
    watching.heartbeat('step 3')
    time.sleep(3600)
"""


@pytest.mark.parametrize('disk', ['well', 'hung', 'broken'])
def test_a_stuck_process_ends_and_reports_where(tmp_path, disk):
    if disk == 'hung':  # opening a pipe that no other process opens waits for ever
        (tmp_path / 'hosts').mkdir()
        for index in range(2):
            os.mkfifo(tmp_path / 'hosts' / str(index))
    elif disk == 'broken':
        (tmp_path / 'hosts').write_text('not a folder')
    done = subprocess.run(
        [sys.executable, '-c', STUCK, tmp_path],
        env=processes.environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == watchdog.STUCK, done.stderr
    assert 'stuck (loop.stuck_seconds is 1)' in done.stderr and 'at step 3' in done.stderr
    assert ('process 1 never said where it is' in done.stderr) == (disk != 'hung')
    assert 'time.sleep' not in done.stderr and 'File "<string>", line' in done.stderr  # the stack
    if disk == 'well':
        assert 'at step 3' in (tmp_path / 'hosts' / '0').read_text()
