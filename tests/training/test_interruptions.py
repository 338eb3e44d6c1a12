"""What a long run meets: kills, a notice, a full disk, a batch that never comes."""

import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.training import loop, watchdog
from tests.training.processes import ends, has_begun, lines_in, rows_of, said, until

SCRIPT = Path(__file__).with_name('toy_job.py')


def check_identical(folder, **options):
    """The folder's run has ended as an undisturbed one in this process does, bit for bit."""
    calm = folder.with_name('calm')
    calm.mkdir()
    toy = runpy.run_path(str(SCRIPT))
    expected = loop.fit(*toy['job'](calm, **options))
    found = np.load(folder / 'params.npz')
    assert set(found.files) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(array), found[name])
    assert rows_of(folder) == rows_of(calm)


def test_after_a_notice_it_saves_exits_with_0_and_goes_on(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    (process,) = start_toy(folder, pause=0.1, checkpoint_seconds=1000.0)
    until(lambda: lines_in(folder) >= 3, [process])
    process.send_signal(signal.SIGTERM)
    ends([process], seconds=25)  # Google's spot machines give 30 s
    assert 'preempted' in said([process])
    steps = [int(path.name) for path in (folder / 'checkpoints').glob('[0-9]*')]
    assert steps and max(steps) >= rows_of(folder)[-1]['step']
    ends(start_toy(folder))
    check_identical(folder)


def test_a_notice_does_not_wait_for_the_validation(start_toy, tmp_path):
    """Stopped twice in the validation of the first epoch, whose steps end with the second line."""
    folder = tmp_path / 'toy'
    for _ in range(2):
        begun = time.time()
        (process,) = start_toy(folder, pause=0.5, checkpoint_seconds=1000.0)
        until(lambda: has_begun(folder, begun) and lines_in(folder) == 2, [process])  # noqa: B023
        process.send_signal(signal.SIGTERM)
        ends([process], seconds=25)
        assert [path.name for path in (folder / 'checkpoints').glob('[0-9]*')] == ['6']
        assert lines_in(folder) == 2 and rows_of(folder)[-1]['step'] == 6
    ends(start_toy(folder))
    check_identical(folder)


@pytest.mark.slow
def test_killed_at_twenty_moments_it_ends_as_if_undisturbed(start_toy, tmp_path):
    folder, moments, kills = tmp_path / 'toy', random.Random(11), 0
    long = dict(epochs=(40, 20))
    while kills < 20:
        (process,) = start_toy(folder, pause=0.03, checkpoint_seconds=0.2, **long)
        begun = time.time()
        if kills % 4:  # else while it starts
            until(lambda: has_begun(folder, begun), [process])  # noqa: B023
        time.sleep(moments.uniform(0, 1.5))
        assert process.poll() is None, (kills, said([process]))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
    ends(start_toy(folder, **long))
    check_identical(folder, **long)


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(tmp_path):
    """In a file system of its own, first too small, then not."""
    disk, out = tmp_path / 'disk', tmp_path / 'toy'
    disk.mkdir()
    out.mkdir()
    run = f'{sys.executable} {SCRIPT} {disk}/toy {{}}'
    script = f"""
        mount -t tmpfs -o size=160k tmpfs {disk} || exit 77
        mkdir {disk}/toy
        {run.format("'{}'")} > {out}/full 2>&1; echo $? > {out}/status
        mount -o remount,size=50m {disk}
        {run.format("'{}'")} > {out}/rest 2>&1 && cp {disk}/toy/*.npz {disk}/toy/*.jsonl {out}
    """
    environment = {
        **os.environ, 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1', 'PYTHONPATH': str(SCRIPT.parents[2]),
    }  # fmt: skip
    try:
        done = subprocess.run(['unshare', '-rm', 'sh', '-c', script], env=environment, timeout=300)
    except FileNotFoundError:
        pytest.skip('no unshare here')
    if not (out / 'status').exists():
        pytest.skip('no file system can be mounted here')
    full = (out / 'full').read_text()
    assert (out / 'status').read_text() == '1\n' and 'no space is left on the disk' in full, full
    assert done.returncode == 0, (out / 'rest').read_text()[-3000:]
    check_identical(out)


def test_a_video_that_is_never_read_is_named(start_toy, tmp_path):
    (process,) = start_toy(tmp_path / 'toy', stuck=7, stuck_seconds=20.0)
    ends([process], seconds=180, status=watchdog.STUCK)
    text = process.log.read_text()
    assert 'at the data of step' in text and 'reads video7, for' in text
    assert 'toy_job.py' in text  # the stack of the thread that reads


@pytest.mark.slow
def test_memory_stays_flat_over_two_thousand_steps(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    (process,) = start_toy(folder, epochs=(420,), checkpoint_seconds=1.0)
    sizes = {}
    while process.poll() is None:
        time.sleep(0.05)
        step = rows_of(folder)[-1]['step'] if lines_in(folder) else 0
        status = Path(f'/proc/{process.pid}/status').read_text()
        resident = [line for line in status.splitlines() if line.startswith('VmRSS')]
        if resident:
            sizes[step] = int(resident[0].split()[1]) / 1024  # MB
    assert process.wait() == 0 and max(sizes) > 2400
    middle, end = (
        np.median([size for step, size in sizes.items() if low <= step < low + 200])
        for low in (400, 2300)
    )
    print(f'\nresident: {middle:.0f} MB at step 500, {end:.0f} MB at step 2,400')
    assert end < middle + 10
