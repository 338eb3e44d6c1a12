"""Train AVST on the tiny data set: `python killed_training.py FOLDER INPUTS_JSON STEP`.

The process kills itself before the step of this number; -1 stands for none.
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path

import jax

from amuse_jax.training import loop
from amuse_jax.training.peers import stage
from tests.training.peers.conftest import avst_config, interrupted

if __name__ == '__main__':
    folder, inputs, last = sys.argv[1:]
    jax.config.update('jax_disable_most_optimizations', True)
    kill = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
    loop.train_step = interrupted(loop.train_step, int(last), kill)
    config = avst_config()
    config.loop.checkpoint_seconds = 0.0  # a checkpoint after every step
    stage.run(config, Path(folder), {n: Path(p) for n, p in json.loads(inputs).items()})
