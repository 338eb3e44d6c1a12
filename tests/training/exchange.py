"""Compile a training step for eight virtual devices: `python exchange.py FILE PARTS`.

The model is an embedding and a scan over linear layers. FILE gets the compiled module's text.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.training import sharding, state
from amuse_jax.training.step import train_step

VIDEOS, WIDTH, LAYERS = 32, 48, 5


class Layers(nnx.Module):
    """An embedding and residual layers whose parameters are stacked and scanned over."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Linear(7, WIDTH, rngs=rngs)
        self.stack = nnx.vmap(lambda rngs: nnx.Linear(WIDTH, WIDTH, rngs=rngs))(rngs.split(LAYERS))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [V, d] features of [V, 7] inputs."""
        graphdef, layers = nnx.split(self.stack)
        run = jax.checkpoint(lambda x, layer: (x + jnp.tanh(nnx.merge(graphdef, layer)(x)), None))
        return jax.lax.scan(run, self.embed(x), layers)[0]


def loss(model, batch, rngs):
    """Compute the mean square of the weighted outputs."""
    total = (batch['weights'] * jnp.square(model(batch['x'])).mean(-1)).sum()
    count = batch['weights'].sum()
    return total / jnp.maximum(count, 1), {'loss': jnp.stack([total, count])}


def compile_step(parts: int) -> str:
    """Return the text of the compiled module for a mesh of eight devices along `data`."""
    mesh = sharding.mesh(ConfigDict(dict(data=-1, fsdp=1, tensor=1)))
    structure, params, frozen = state.split(Layers(nnx.Rngs(0)), '.')
    optimizer = state.adam(lambda _: 1e-3)
    initial = state.init_state(params, optimizer, ('loss',))
    shardings = sharding.state_shardings(initial, mesh)
    step = train_step(loss, structure, optimizer, 0, shardings, parts)
    batch = {'x': np.ones((VIDEOS, 7), np.float32), 'weights': np.ones(VIDEOS, np.float32)}
    arguments = sharding.shard_params(initial, shardings), frozen, sharding.shard_batch(batch, mesh)
    return step.lower(*arguments, jax.random.key(0)).compile().as_text()


if __name__ == '__main__':
    Path(sys.argv[1]).write_text(compile_step(int(sys.argv[2])))
