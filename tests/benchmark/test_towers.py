import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amuse_jax.benchmark import reference, towers
from amuse_jax.models import summary
from amuse_jax.stages import StageError
from configs import base

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config():
    config = base.get_config()
    config.data.update(segments=2, segment_seconds=1.0, image_size=32)
    tower = dict(image_size=32, patch=4, width=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 2), window=4)
    config.model.visual.update(tower)
    # Hugging Face's tables of biases do not shrink with a map that is smaller than the window.
    config.model.audio.update(tower | dict(image_size=64, window=2))
    config.audio.mels = 32
    config.model.text.update(max_words=6, width=16, depth=2, heads=2, mlp_width=32)
    config.model.adapters.rounds = 2
    return config


@pytest.mark.parametrize('part', towers.PARTS)
@pytest.mark.parametrize('work', towers.WORK)
def test_both_sides_agree(config, part, work):
    made = towers.compare(config, part, work, 'float32', with_compile=False)
    assert made.runs.keys() == {'JAX', 'PyTorch'}
    assert made.samples == (config.train.questions if part == 'text' else 2)
    assert made.compile_seconds > 0


def test_a_gradient_is_about_three_forwards(config):
    forward, gradient = (
        towers.compare(config, 'visual', work, 'float32', with_compile=False).flops
        for work in towers.WORK
    )
    assert 2.5 < gradient / forward < 3.5
    rows = {row.part: row.flops for row in summary.describe(config)}
    assert forward == rows['visual tower']


def test_sides_that_differ_are_refused(config, monkeypatch):
    right = reference.output
    monkeypatch.setattr(reference, 'output', lambda *args: right(*args) * torch.tensor(1.02))
    with pytest.raises(StageError, match='visual forward: JAX and PyTorch differ by 2.0e-02'):
        towers.compare(config, 'visual', 'forward', 'float32', with_compile=False)


@pytest.mark.slow
def test_the_command_prints_and_writes_a_row_for_each(tmp_path):
    command = [
        sys.executable, '-m', 'amuse_jax.benchmark', '--config=configs/demo.py', '--rounds=2',
        '--parts=visual,text', '--work=forward', f'--json={tmp_path / "figures.json"}',
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'figures.json').read_text())
    assert [row['work'] for row in found['rows']] == ['visual forward', 'text forward']
    for row in found['rows']:
        assert row['x PyTorch'] == pytest.approx(row['PyTorch s'] / row['JAX s'])
    assert '| visual forward' in done.stdout and 'GFLOP/s' in done.stdout
