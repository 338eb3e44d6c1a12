"""What the benchmark measures apart from its table: sweeps, torch.compile, both allocators."""

import json
import os
import shutil

import pytest

from amuse_jax.benchmark import sweeps
from tests.benchmark.command import SMALLEST, command


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='torch.compile needs g++'
)
def test_torch_compile_and_both_settings_of_freed_memory(tmp_path):
    common = [*SMALLEST, f'--out={tmp_path}']
    for arguments in (['--rows=step'], ['--rows=text', '--freed_memory=both']):
        done = command(*common, *arguments, timeout=1800)
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'figures.json').read_text())['rows']
    assert [(row['work'].split()[0], row['allocator']) for row in found] == [
        ('training', 'kept'), ('text', 'kept'), ('text', 'returned'),
    ]  # fmt: skip
    for row in found:
        assert row['compile_seconds']['torch.compile'] > 0


@pytest.mark.slow
def test_sweeps_are_measured_and_drawn(tmp_path):
    # What is kept must decide the memory. With one round of adapters there is nothing to keep, and
    # with trainable words Adam's update of their table needs more memory than any gradient.
    sizes = ['--config.data.segments=6', '--config.train.trainable=adapters|answer']
    small = ['--config=tests/benchmark/small.py', '--rounds=1', *sizes]
    done = command(*small, '--sweep=questions,remat_policy', f'--out={tmp_path}', timeout=1800)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'figures.json').read_text())['sweeps']
    for axis in ('questions', 'remat_policy'):
        assert [point['value'] for point in found[axis]] == sorted(sweeps.AXES[axis])
    points = found['remat_policy']
    planned = {point['value']: point['planned_bytes']['JAX'] for point in points}
    assert planned['inputs'] < planned['attention'] < planned['products'] < planned['everything']
    assert len({point['flops'] for point in points}) == 1  # recomputed products do not count
    assert (tmp_path / 'sweeps.png').exists()
