"""Kill processes that train a peer in the middle of an epoch, and start them again."""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training import processes
from tests.training.peers.test_stage import final

SCRIPT = Path(__file__).with_name('killed_training.py')


@pytest.mark.slow
def test_a_killed_training_equals_an_uninterrupted_one(trained_avst, tmp_path):
    """It is killed in the second epoch of grounding and in the second epoch of questions."""
    config, inputs, summary = trained_avst
    killed, environment = tmp_path / 'killed', processes.environment()
    killed.mkdir()
    needed = json.dumps({name: str(inputs[name]) for name in ('prepare', 'features')})
    steps_of_grounding = 6  # 27 pairs in batches of 9, twice
    of_an_epoch = (summary['steps'] - steps_of_grounding) // config.peer.epochs
    moments = 4, steps_of_grounding + of_an_epoch + 1
    assert steps_of_grounding // 2 < moments[0] < steps_of_grounding
    assert of_an_epoch > 2  # so that both moments are inside an epoch
    for step in (*moments, -1):
        command = [sys.executable, SCRIPT, killed, needed, str(step)]
        process = processes.start(command, tmp_path / 'log', env=environment)
        status = 0 if step == -1 else -signal.SIGKILL
        processes.wait_for_exit([process], 600, status)
        assert list((killed / 'checkpoints').iterdir())
    assert processes.read_metrics(killed) == processes.read_metrics(inputs['train'])
    calm, resumed = final(config, inputs), final(config, inputs | {'train': killed})
    assert calm.keys() == resumed.keys()
    for name, array in calm.items():
        np.testing.assert_array_equal(array, resumed[name])
