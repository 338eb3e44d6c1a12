"""Checkpoints and best parameters saved at the same time, again and again, by several processes;
then one of them gets a notice of preemption, and all say `noticed` when they know of it.

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
    hosts.start(f'localhost:{port}', *map(int, numbers))
    preemption.watch(0)
    mesh = sharding.mesh(ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1}))
    fresh = state.fresh({'kernel': jnp.ones((64, 64))}, state.adam(lambda _: 1e-3), ('loss',), 0)
    fresh = sharding.put(fresh, sharding.of_state(fresh, mesh))
    iterator = iter(grain.MapDataset.range(1).to_iter_dataset())
    kept = checkpoints.Checkpoints(Path(target) / 'checkpoints', keep=2)
    best = checkpoints.Best(Path(target) / 'best')
    for number in range(1, ROUNDS + 1):
        best.offer(number, fresh.params, {'step': number})
        kept.save(fresh._replace(step=fresh.step + number), iterator, {})
    kept.close()
    best.close()
    hosts.wait('saved')
    if not hosts.is_first():
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(4)  # JAX looks every second, then the processes agree on a number
    if any(preemption.is_noticed() for _ in range(10)):
        print('noticed')
    hosts.wait('asked')
