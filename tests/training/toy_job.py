"""A small training job through the real loop.

As a script: `python toy_job.py FOLDER SECONDS_PER_BATCH`.
"""

import sys
import time
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.training import loop, sharding, state

VIDEOS, BATCH = 24, 4


class Toy(nnx.Module):
    """A frozen layer, dropout and a trained layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.tower = nnx.Linear(6, 64, rngs=rngs)
        self.dropout = nnx.Dropout(0.2)
        self.answer = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x, rngs=None):
        x = nnx.relu(self.tower(x))
        return self.answer(self.dropout(x, rngs=rngs, deterministic=rngs is None))


def loss(model, batch, rngs):
    """Weighted cross-entropy over three answers, with accuracy."""
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
    epochs: tuple[int, ...] = (4, 2),
    poison: tuple[int, ...] = (),
    max_refused: int = 0,
    checkpoint_seconds: float = 0.3,
    stuck_seconds: float = 60.0,
) -> tuple[loop.Job, state.Arrays]:
    """Two phases over random data that can be learnt; `poison`: records whose x is NaN."""
    random = np.random.default_rng(0)
    x = random.normal(size=(VIDEOS, 6)).astype(np.float32)
    answers = (x @ random.normal(size=(6, 3))).argmax(-1).astype(np.int32)
    x[list(poison)] = np.nan

    def fetch(index, rng=None):
        time.sleep(pause / BATCH)
        return {
            'x': x[index] + (0 if rng is None else 0.01 * rng.normal(size=6).astype(np.float32)),
            'answers': answers[index],
            'weights': np.float32(1),
            'record': np.int32(index),
        }

    def phase(epochs, rate):
        source = grain.MapDataset.range(VIDEOS)
        batches = source.random_map(fetch, seed=1).shuffle(seed=2).batch(BATCH).repeat(epochs)
        return loop.Phase(
            epochs=epochs,
            batches=batches,
            loss=loss,
            learning_rate=state.halving(rate, VIDEOS // BATCH, 2),
            samples='loss',
            validation=loop.Validation(
                source.map(fetch).batch(BATCH),
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
        )
    )
    return loop.Job(
        name='toy',
        folder=folder,
        structure=structure,
        frozen=frozen,
        metrics=('loss', 'accuracy'),
        phases=[phase(count, rate) for count, rate in zip(epochs, (3e-2, 1e-2))],
        settings=settings,
        mesh=sharding.mesh(ConfigDict(dict(data=-1, fsdp=1, tensor=1))),
        seed=0,
        video_ids=[f'video{index}' for index in range(VIDEOS)],
        best_by='accuracy',
    ), params


if __name__ == '__main__':
    target = Path(sys.argv[1])
    params = loop.fit(*job(target, pause=float(sys.argv[2])))
    np.savez(target / 'params.npz', **params)
