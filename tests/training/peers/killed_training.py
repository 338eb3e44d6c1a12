"""Train AVST on the tiny data set: `python killed_training.py FOLDER INPUTS_JSON STEP`.

The process kills itself before the step of this number; -1 stands for none.
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax

from amuse_jax.training import loop
from amuse_jax.training.peers import stage
from tests.training.peers.conftest import avst_config

if __name__ == '__main__':
    folder, inputs, last = sys.argv[1:]
    jax.config.update('jax_disable_most_optimizations', True)
    build_step = loop.train_step

    def killing(*arguments, **options):
        step = build_step(*arguments, **options)

        class Step:
            trace = step.trace

            def __call__(self, state, *others):
                if int(state.step) == int(last):
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(state, *others)

        return Step()

    loop.train_step = killing
    config = avst_config()
    config.loop.checkpoint_seconds = 0.0  # a checkpoint after every step
    stage.run(config, Path(folder), {n: Path(p) for n, p in json.loads(inputs).items()})
