"""The benchmark's command, run in a process of its own."""

import subprocess
import sys

from tests.paths import ROOT

# The smallest model that has every part: compiling it takes most of the slow tests' time.
SMALLEST = [
    '--config=tests/benchmark/small.py', '--rounds=2', '--config.model.adapters.rounds=1',
    '--config.model.text.depth=1', '--config.model.answer.layers=1',
    *(f'--config.model.{tower}.depths=(1, 1, 1, 1)' for tower in ('visual', 'audio')),
]  # fmt: skip


def command(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run `python -m amuse_jax.benchmark` and return its exit status and output."""
    line = [sys.executable, '-m', 'amuse_jax.benchmark', *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
