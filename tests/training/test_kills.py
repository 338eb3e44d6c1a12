"""The real stages, killed at random moments and started again (whole processes, so slow)."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from amuse_jax.training import answering, checkpoints, pace, pretrain, state, stored

SCRIPT = Path(__file__).with_name('tiny_stage.py')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['pretrain', 'train'])
def test_a_killed_stage_ends_as_if_undisturbed(request, pretrained, tmp_path, name):
    config, inputs, _ = pretrained
    if name == 'train':
        inputs = request.getfixturevalue('trained')[1]
    calm, killed, cache = inputs[name], tmp_path / 'killed', tmp_path / 'compiled'
    killed.mkdir()
    needed = {n: str(inputs[n]) for n in ('prepare', 'annotate', 'rois', 'pretrain')}
    command = [sys.executable, SCRIPT, name, killed, json.dumps(needed)]
    environment = {
        **os.environ,
        'PYTHONPATH': str(SCRIPT.parents[2]),
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
    }
    moments = random.Random(5)
    for wait in (0, 10, 30):  # lines to see before the kill
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and _lines(killed) < min(wait, _lines(calm) - 2):
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 8 if not wait else 1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert _rows(killed) == _rows(calm)
    for found, expected in zip(_final(name, config, inputs, killed), _final(name, config, inputs)):
        np.testing.assert_array_equal(found, expected)


def _lines(folder):
    path = folder / 'metrics.jsonl'
    return len(path.read_text().splitlines()) if path.exists() else 0


def _rows(folder):
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').open()]
    return [{name: row[name] for name in row if name not in pace.CLOCK} for row in rows]


def _final(name, config, inputs, folder=None):
    """The arrays that a stage ends with."""
    folder = folder or inputs[name]
    if name == 'pretrain':
        arrays = stored.read(folder / 'features', pretrain.FEATURES)
        return [*arrays.values(), *pretrain.load(config, folder)[1].values()]
    model = answering.build(config, inputs['rois'], nnx.Rngs(0))
    _, params, _ = state.split(model, config.train.trainable)
    params = checkpoints.read_params(folder / 'checkpoints', params)
    arrays = stored.read(folder / 'encoded', ('front_visual', 'closed_audio'))
    return [*arrays.values(), *params.values()]
