"""Starting processes, waiting for what they do, and reading the metrics they leave."""

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
    """Of a process on CPU devices of its own that compiles as quickly as the tests' own."""
    return {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
        'PYTHONPATH': str(ROOT),
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}',
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(('localhost', 0))
        return found.getsockname()[1]


def start(command: Sequence, log: Path, **options) -> subprocess.Popen:
    """A process whose output is added to the file `log`, where the functions below find it."""
    with open(log, 'a') as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, **options)
    process.log = log
    return process


def said(processes: Sequence[subprocess.Popen]) -> str:
    """The ends of the processes' logs."""
    return '\n'.join(f'{each.log}: {each.log.read_text()[-3000:]}' for each in processes)


def until(
    condition: Callable[[], bool], processes: Sequence[subprocess.Popen], seconds: float = 120.0
) -> None:
    """Waits for something that happens while all the processes run."""
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [process.poll() for process in processes]
        assert not any(status is not None for status in ended), (ended, said(processes))
        assert time.monotonic() < deadline, ('not in time', said(processes))
        time.sleep(0.02)


def ends(processes: Sequence[subprocess.Popen], seconds: float = 300.0, status: int = 0) -> None:
    """Waits until all have ended with the status."""
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            raise AssertionError(('still running', said(processes))) from None
    statuses = [process.returncode for process in processes]
    assert set(statuses) == {status}, (statuses, said(processes))


def rows_of(folder: Path) -> list[dict]:
    """The lines of metrics without what depends on the clock."""
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{name: row[name] for name in row if name not in throughput.CLOCK} for row in rows]


def has_begun(folder: Path, since: float) -> bool:
    """Whether a run that was started `since` then (time.time()) has come as far as its metrics."""
    path = folder / 'metrics.jsonl'
    return path.exists() and path.stat().st_mtime > since


def lines_in(folder: Path) -> int:
    path = folder / 'metrics.jsonl'
    return len(path.read_text().splitlines()) if path.exists() else 0
