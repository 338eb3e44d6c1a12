"""Save checkpoints and best parameters at the same time, repeatedly, in several processes.

Then one process gets a notice of preemption, and all of them print `noticed` when it reaches them.
As a script: `python two_folders.py FOLDER OPTIONS PORT PROCESS PROCESSES`; there are no options.
"""

import os
import signal
import sys
import time
from pathlib import Path

import grain
import jax.numpy as jnp
from ml_collections import ConfigDict

from amuse_jax.system import hosts, preemption
from amuse_jax.training import checkpoints, sharding, state

ROUNDS = 30

if __name__ == '__main__':
    target, _, port, *numbers = sys.argv[1:]
    hosts.initialize(f'localhost:{port}', *map(int, numbers))
    preemption.handle_sigterm(0)
    mesh = sharding.mesh(ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1}))
    initial = state.init_state(
        {'kernel': jnp.ones((64, 64))}, state.adam(lambda _: 1e-3), ('loss',), 0
    )
    initial = sharding.shard_params(initial, sharding.state_shardings(initial, mesh))
    iterator = iter(grain.MapDataset.range(1).to_iter_dataset())
    newest = checkpoints.Checkpoints(Path(target) / 'checkpoints', keep=2)
    best = checkpoints.Best(Path(target) / 'best')
    for number in range(1, ROUNDS + 1):
        best.save_if_best(number, initial.params, {'step': number})
        newest.save(initial._replace(step=initial.step + number), iterator, {})
    newest.close()
    best.close()
    hosts.barrier('saved')
    if not hosts.is_first():
        os.kill(os.getpid(), signal.SIGTERM)
    while not preemption.notice_received():  # the test has a deadline
        time.sleep(0.1)
    print('noticed')
    hosts.barrier('asked')
