"""Helpers that start processes, wait for them, and read their logs and metrics."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from amuse_jax.training import throughput
from tests.paths import ROOT


def environment(devices: int = 1) -> dict[str, str]:
    """Return the environment of a process with virtual CPU devices and quick compilation."""
    return {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
        'PYTHONPATH': str(ROOT),
        'TF_CPP_MIN_LOG_LEVEL': '0',  # ultralytics mutes JAX's log, which tests wait for
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}',
    }


def free_port() -> int:
    """Return a free port on this machine."""
    with socket.socket() as server:
        server.bind(('localhost', 0))
        return server.getsockname()[1]


def start(command: Sequence, log: Path, **options) -> subprocess.Popen:
    """Start a process that appends its output to `log`, and store this path in `process.log`."""
    with open(log, 'a') as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, **options)
    process.log = log
    return process


def log_tails(processes: Sequence[subprocess.Popen]) -> str:
    """Return the last part of each process's log."""
    return '\n'.join(f'{each.log}: {each.log.read_text()[-3000:]}' for each in processes)


def wait_until(
    condition: Callable[[], bool], processes: Sequence[subprocess.Popen], seconds: float = 300.0
) -> None:
    """Wait until the condition is true; fail if a process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [process.poll() for process in processes]
        assert not any(status is not None for status in ended), (ended, log_tails(processes))
        assert time.monotonic() < deadline, ('not in time', log_tails(processes))
        time.sleep(0.02)


def wait_for_exit(
    processes: Sequence[subprocess.Popen], seconds: float = 300.0, status: int = 0
) -> None:
    """Wait until all processes have ended; fail if one has another exit status."""
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            raise AssertionError(('still running', log_tails(processes))) from None
    statuses = [process.returncode for process in processes]
    assert set(statuses) == {status}, (statuses, log_tails(processes))


def read_metrics(folder: Path) -> list[dict]:
    """Read the lines of metrics, without the metrics that depend on the clock."""
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{name: row[name] for name in row if name not in throughput.CLOCK} for row in rows]


def has_started(folder: Path, since: float) -> bool:
    """Return whether a run started after `since` (time.time()) has opened its file of metrics."""
    path = folder / 'metrics.jsonl'
    return path.exists() and path.stat().st_mtime > since


def count_lines(folder: Path) -> int:
    """Return the number of lines of metrics so far."""
    path = folder / 'metrics.jsonl'
    return len(path.read_text().splitlines()) if path.exists() else 0
