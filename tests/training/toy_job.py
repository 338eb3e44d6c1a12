"""A small training job that uses the real training loop.

As a script: `python toy_job.py FOLDER OPTIONS [PORT PROCESS PROCESSES]`, with the options of `job`
as JSON. It writes params.npz. The exit status is 0 after a preemption, too.
"""

import json
import sys
import time
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.data import pipeline
from amuse_jax.errors import StageError
from amuse_jax.system import hosts, preemption
from amuse_jax.system.files import full_disk_as_error
from amuse_jax.training import jobs, loop, sharding, state

VIDEOS, BATCH = 24, 4


class Toy(nnx.Module):
    """A frozen layer, dropout and a trained layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.tower = nnx.Linear(6, 64, rngs=rngs)
        self.dropout = nnx.Dropout(0.2)
        self.answer = nnx.Linear(64, 4, rngs=rngs)

    def __call__(self, x, rngs=None):
        x = nnx.relu(self.tower(x))
        return self.answer(self.dropout(x, rngs=rngs, deterministic=rngs is None))


def loss(model, batch, rngs):
    """Compute the weighted cross-entropy over the answers, and the accuracy."""
    logits = model(batch['x'], rngs)
    weights = batch['weights']
    log_likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits), batch['answers'][:, None], 1)
    losses = -weights * log_likelihood[:, 0]
    is_right = weights * (logits.argmax(-1) == batch['answers'])
    total = weights.sum()
    sums = {
        'loss': jnp.stack([losses.sum(), total]),
        'accuracy': jnp.stack([is_right.sum(), total]),
    }
    return losses.sum() / total, sums


def job(
    folder: Path,
    *,
    pause: float = 0.0,
    validation_pause: float = 0.0,
    epochs: tuple[int, ...] = (4, 2),
    poison: tuple[int, ...] = (),
    max_refused: int = 0,
    checkpoint_seconds: float = 0.3,
    stuck_seconds: float = 60.0,
    stuck: int = -1,
    mesh: tuple[int, int, int] = (-1, 1, 1),
    profile_steps: str = '',
) -> tuple[jobs.Job, state.Arrays]:
    """Return a job of two phases on random data that can be learnt, and its initial parameters.

    Args:
      folder: the folder of the job.
      pause: seconds needed to read a batch.
      validation_pause: further seconds needed to read a batch of the validation.
      epochs: number of epochs of each phase.
      poison: records whose x is NaN.
      max_refused, checkpoint_seconds, stuck_seconds: settings of the loop.
      stuck: the record whose reading never ends.
      mesh: sizes of the mesh.
      profile_steps: see `loop.profile_steps`.
    """
    devices = sharding.mesh(ConfigDict(dict(zip(sharding.AXES, mesh))))
    rows = sharding.local_rows(BATCH, devices)
    random = np.random.default_rng(0)
    x = random.normal(size=(VIDEOS, 6)).astype(np.float32)
    answers = (x @ random.normal(size=(6, 3))).argmax(-1).astype(np.int32)
    x[list(poison)] = np.nan

    def fetch(index, rng=None):
        with pipeline.track_read(index):
            seconds = pause + (validation_pause if rng is None else 0.0)
            time.sleep(seconds / BATCH if index != stuck else 1e6)
        return {
            'x': x[index] + (0 if rng is None else 0.01 * rng.normal(size=6).astype(np.float32)),
            'answers': answers[index],
            'weights': np.float32(1),
            'record': np.int32(index),
        }

    def phase(epochs, rate):
        source = grain.MapDataset.range(VIDEOS)
        items = source.random_map(fetch, seed=1).shuffle(seed=2)
        batches = pipeline.batched(items, BATCH, rows).repeat(epochs)
        return jobs.Phase(
            epochs=epochs,
            batches=batches,
            loss=loss,
            learning_rate=state.stepped_schedule(rate, VIDEOS // BATCH, 2, 0.5),
            samples='loss',
            validation=jobs.Validation(
                pipeline.batched(source.map(fetch), BATCH, rows),
                lambda model, batch: (loss(model, batch, None)[1], None),
            ),
        )

    structure, params, frozen = state.split(Toy(nnx.Rngs(0)), 'answer')
    settings = ConfigDict(
        dict(
            log_steps=4,
            checkpoint_seconds=checkpoint_seconds,
            keep=2,
            max_refused=max_refused,
            optimization_level=0,
            stuck_seconds=stuck_seconds,
            profile_steps=profile_steps,
        )
    )
    return jobs.Job(
        name='toy',
        folder=folder,
        structure=structure,
        frozen=frozen,
        metrics=('loss', 'accuracy'),
        phases=[phase(count, rate) for count, rate in zip(epochs, (3e-2, 1e-2))],
        settings=settings,
        mesh=devices,
        seed=0,
        video_ids=[f'video{index}' for index in range(VIDEOS)],
        best_by='accuracy',
    ), params


if __name__ == '__main__':
    target, options, *several = sys.argv[1:]
    if several:
        port, *numbers = several
        hosts.initialize(f'localhost:{port}', *map(int, numbers))
    preemption.handle_sigterm(0)
    try:
        with full_disk_as_error('toy', Path(target)):
            params = loop.fit(*job(Path(target), **json.loads(options)))
    except preemption.Preempted:
        print('preempted')
        sys.exit(0)
    except StageError as error:
        hosts.exit_at_once(str(error))
    except Exception as error:
        if hosts.count() == 1:
            raise
        hosts.exit_on_error(error)
    params = sharding.fetch(params)
    if hosts.is_first():
        np.savez(Path(target) / 'params.npz', **params)
