"""Interruptions of a long run: kills, preemption notices, a full disk, a batch that never comes."""

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
from tests.training.processes import (
    count_lines,
    has_started,
    log_tails,
    read_metrics,
    wait_for_exit,
    wait_until,
)

SCRIPT = Path(__file__).with_name('toy_job.py')


def check_identical(folder, **options):
    """Check that the run in the folder equals an uninterrupted run in this process bit for bit."""
    calm = folder.with_name('calm')
    calm.mkdir()
    toy = runpy.run_path(str(SCRIPT))
    expected = loop.fit(*toy['job'](calm, **options))
    found = np.load(folder / 'params.npz')
    assert set(found.files) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(array), found[name])
    assert read_metrics(folder) == read_metrics(calm)


@pytest.mark.slow
def test_after_a_notice_the_run_saves_exits_with_0_and_resumes(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    (process,) = start_toy(folder, pause=0.4, checkpoint_seconds=1000.0)
    wait_until(lambda: count_lines(folder) >= 3, [process])
    process.send_signal(signal.SIGTERM)
    wait_for_exit([process])
    assert 'preempted' in log_tails([process]) and not (folder / 'params.npz').exists()
    steps = [int(path.name) for path in (folder / 'checkpoints').glob('[0-9]*')]
    assert steps and max(steps) >= read_metrics(folder)[-1]['step']
    wait_for_exit(start_toy(folder))
    check_identical(folder)


@pytest.mark.slow
def test_a_notice_does_not_wait_for_the_validation(start_toy, tmp_path):
    """Stop the run twice in its first validation, which follows the second line of metrics."""
    folder = tmp_path / 'toy'
    for _ in range(2):
        begun = time.time()
        (process,) = start_toy(folder, validation_pause=3.0, checkpoint_seconds=1000.0)
        wait_until(lambda: has_started(folder, begun) and count_lines(folder) == 2, [process])  # noqa: B023
        process.send_signal(signal.SIGTERM)
        wait_for_exit([process])
        assert [path.name for path in (folder / 'checkpoints').glob('[0-9]*')] == ['6']
        assert count_lines(folder) == 2 and read_metrics(folder)[-1]['step'] == 6
    wait_for_exit(start_toy(folder))
    check_identical(folder)


@pytest.mark.slow
def test_a_run_killed_twenty_times_equals_an_uninterrupted_one(start_toy, tmp_path):
    folder, moments, kills = tmp_path / 'toy', random.Random(11), 0
    long = dict(epochs=(40, 20))
    while kills < 20:
        (process,) = start_toy(folder, pause=0.03, checkpoint_seconds=0.2, **long)
        begun = time.time()
        if kills % 4:  # every fourth kill hits the start of the process
            wait_until(lambda: has_started(folder, begun), [process])  # noqa: B023
        time.sleep(moments.uniform(0, 1.5))
        assert process.poll() is None, (kills, log_tails([process]))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
    wait_for_exit(start_toy(folder, **long))
    check_identical(folder, **long)


def test_a_full_disk_is_reported_and_the_run_resumes_when_there_is_space(tmp_path):
    """The run uses its own file system, which is first too small and then large enough."""
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


@pytest.mark.slow
def test_a_video_whose_reading_never_ends_is_reported(start_toy, tmp_path):
    (process,) = start_toy(tmp_path / 'toy', stuck=7, stuck_seconds=20.0)
    wait_for_exit([process], status=watchdog.STUCK)
    text = process.log.read_text()
    assert 'at the data of step' in text and 'reads video7, for' in text
    assert 'toy_job.py' in text  # the stack of the thread that reads


@pytest.mark.slow
def test_memory_stays_flat_over_two_thousand_steps(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    (process,) = start_toy(folder, epochs=(420,), checkpoint_seconds=1.0)
    sizes, deadline = {}, time.monotonic() + 1200
    while process.poll() is None:
        assert time.monotonic() < deadline, (sizes, log_tails([process]))
        time.sleep(0.05)
        step = read_metrics(folder)[-1]['step'] if count_lines(folder) else 0
        status = Path(f'/proc/{process.pid}/status').read_text()
        resident = [line for line in status.splitlines() if line.startswith('VmRSS')]
        if resident:
            sizes[step] = int(resident[0].split()[1]) / 1024  # MB
    assert process.returncode == 0 and max(sizes) > 2400, log_tails([process])
    middle, end = (
        np.median([size for step, size in sizes.items() if low <= step < low + 200])
        for low in (400, 2300)
    )
    print(f'\nresident: {middle:.0f} MB at step 500, {end:.0f} MB at step 2,400')
    assert end < middle + 10
