"""The real stages, killed at random moments and started again (whole processes, so slow)."""

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
from tests.training.processes import ends, lines_in, rows_of, start, until

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
        process = start(command, tmp_path / 'log', env=environment)
        wanted = min(wait, lines_in(calm) - 2)
        until(lambda: lines_in(killed) >= wanted, [process], 600)  # noqa: B023
        time.sleep(moments.uniform(0, 8 if not wait else 1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    ends([start(command, tmp_path / 'log', env=environment)], 600)
    assert rows_of(killed) == rows_of(calm)
    for found, expected in zip(_final(name, config, inputs, killed), _final(name, config, inputs)):
        np.testing.assert_array_equal(found, expected)


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
