"""Kill the real stages at random moments and restart them (in whole processes, so slow)."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from amuse_jax.training import checkpoints, state, stored
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering
from tests.training.processes import count_lines, read_metrics, start, wait_for_exit, wait_until

SCRIPT = Path(__file__).with_name('tiny_stage.py')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['pretrain', 'train'])
def test_a_killed_stage_equals_an_uninterrupted_one(request, pretrained, tmp_path, name):
    config, inputs, _ = pretrained
    if name == 'train':
        inputs = request.getfixturevalue('trained')[1]
    calm, killed = inputs[name], tmp_path / 'killed'
    killed.mkdir()
    needed = {n: str(inputs[n]) for n in ('prepare', 'annotate', 'rois', 'pretrain')}
    command = [sys.executable, SCRIPT, name, killed, json.dumps(needed)]
    environment = {**os.environ, 'PYTHONPATH': str(SCRIPT.parents[2])}
    moments = random.Random(5)
    for wait in (0, 10, 30):  # number of lines to wait for before the kill
        process = start(command, tmp_path / 'log', env=environment)
        wanted = min(wait, count_lines(calm) - 2)
        wait_until(lambda: count_lines(killed) >= wanted, [process], 600)  # noqa: B023
        time.sleep(moments.uniform(0, 8 if not wait else 1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    wait_for_exit([start(command, tmp_path / 'log', env=environment)], 600)
    assert read_metrics(killed) == read_metrics(calm)
    for found, expected in zip(_final(name, config, inputs, killed), _final(name, config, inputs)):
        np.testing.assert_array_equal(found, expected)


def _final(name, config, inputs, folder=None):
    """Return the final arrays of a stage."""
    folder = folder or inputs[name]
    if name == 'pretrain':
        arrays = stored.read(folder / 'features', pretrain.FEATURES)
        return [*arrays.values(), *pretrain.load(config, folder)[1].values()]
    model = answering.build(config, inputs['rois'], nnx.Rngs(0))
    _, params, _ = state.split(model, config.train.trainable)
    params = checkpoints.read_params(folder / 'checkpoints', params)
    arrays = stored.read(folder / 'encoded', ('front_visual', 'closed_audio'))
    return [*arrays.values(), *params.values()]
