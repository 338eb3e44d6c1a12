"""The training step: built, counted, and how long it takes to compile at first and afterwards."""

import functools
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amuse_jax.benchmark import inputs, processes
from amuse_jax.data.pipeline import Batch
from amuse_jax.models import flops
from amuse_jax.models.amuse import Amuse, AmuseConfig
from amuse_jax.models.interactive_encoder import InteractiveEncoder
from amuse_jax.training import sharding, state
from amuse_jax.training.step import train_step
from amuse_jax.training.train import answering
from amuse_jax.training.train.answering import FRONT


def training_step(config: ConfigDict, keep_memory: bool) -> dict:
    """The step as it is trained, on stored tokens: traced, lowered and compiled in a fresh process,
    and again in another one, which finds it in the persistent cache. Building the model is not
    part of it."""
    with tempfile.TemporaryDirectory() as folder:
        first, again = (
            processes.run(_seconds, config, folder, keep_memory=keep_memory) for _ in range(2)
        )
    return {
        'work': 'compile of the training step',
        'compile_seconds': {'JAX': first},
        'from_cache_seconds': again,
    }


def _seconds(config: ConfigDict, folder: str) -> float:
    jax.config.update('jax_compilation_cache_dir', folder)
    step, given = abstract_step(config, sharding.single())
    begun = time.perf_counter()
    step.lower(*given).compile()
    return time.perf_counter() - begun


class Step(NamedTuple):
    """The training step of open adapters, at a constant rate.

    Attributes:
      run: see step.train_step.
      begin: from `params` to the state it starts from.
      params, frozen: of the model, arrays or shapes as the model has them.
      shardings: of the state.
    """

    run: Callable
    begin: Callable[[state.Arrays], state.TrainState]
    params: state.Arrays
    frozen: state.Arrays
    shardings: state.TrainState


def build_step(config: ConfigDict, model: Amuse, mesh: Mesh) -> Step:
    """The step that the config's `train` asks for, of a model with arrays or with shapes alone."""
    structure, params, frozen = state.split(model, config.train.trainable)
    optimizer = state.adam(optax.constant_schedule(config.train.learning_rate))
    begin = functools.partial(state.fresh, optimizer=optimizer, metrics=answering.METRICS)
    shardings = sharding.of_state(jax.eval_shape(begin, params), mesh)
    loss = functools.partial(answering.loss, is_open=True)
    level, parts = config.loop.optimization_level, config.train.parts
    run = train_step(loss, structure, optimizer, level, shardings, parts)
    return Step(run, begin, params, frozen, shardings)


def abstract_step(
    config: ConfigDict, mesh: Mesh, batch: Batch | None = None
) -> tuple[Callable, tuple]:
    """The training step on a mesh, and the shapes and shardings of what it is called with; nothing
    is allocated for it.

    Args:
      config: the sizes.
      mesh: of sharding.mesh.
      batch: None: `train.batch_size` videos with stored tokens.

    Raises:
      StageError: the devices cannot share out the batch or a parameter.
    """
    model = _shapes(config)
    if batch is None:
        sharding.rows(config.train.batch_size, mesh)
        batch = inputs.draw(config, config.train.batch_size, config.train.questions)
        del batch['frames'], batch['log_mel']
        batch |= stored_tokens(config, config.train.batch_size, model)
    made = build_step(config, model, mesh)
    begun = jax.eval_shape(made.begin, made.params)
    begun = jax.tree.map(sharding.shape, begun, made.shardings)
    frozen = jax.tree.map(sharding.shape, made.frozen, sharding.of_parameters(made.frozen, mesh))
    batch = {
        name: sharding.shape(array, sharding.of_batches(mesh)) for name, array in batch.items()
    }
    key = sharding.shape(jax.eval_shape(lambda: jax.random.key(0)), sharding.whole(mesh))
    return made.run, (begun, frozen, batch, key)


def stored_tokens(
    config: ConfigDict, videos: int, model: Amuse | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what frozen towers left of so many videos; `model` spares tracing one."""
    frames, log_mel = inputs.media_shapes(config, videos)
    given = jax.ShapeDtypeStruct(frames, jnp.uint8), jax.ShapeDtypeStruct(log_mel, jnp.float32)
    model = model or _shapes(config)
    front = jax.eval_shape(InteractiveEncoder.front, model.encoder, *given)
    return {
        name: jax.ShapeDtypeStruct(tokens.shape, jnp.dtype(config.train.encoded_dtype))
        for name, tokens in zip(FRONT, (front.visual, front.audio))
    }


def useful_flops(config: ConfigDict, batch: Batch | None = None) -> int:
    """Of the products of a step that keeps everything for its gradient, on all devices: none counts
    twice that is computed twice. `batch` as for `abstract_step`."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.loop.kept = 'everything'
    step, given = abstract_step(config, sharding.single(), batch)
    return flops.of_products(step.trace(*given).jaxpr)


def _shapes(config: ConfigDict) -> Amuse:
    sizes, phrases = AmuseConfig.from_settings(config), inputs.phrases()
    return nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
