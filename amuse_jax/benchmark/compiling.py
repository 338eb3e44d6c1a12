"""The training step: building it, counting its FLOPs, and measuring its compile time."""

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
from amuse_jax.training.train.answering import QUESTION_FREE
from amuse_jax.training.train.stage import towers_are_frozen


def training_step(config: ConfigDict, keep_memory: bool) -> dict:
    """Measure the compile time of the training step on stored tokens, and return the row.

    The step is traced, lowered and compiled in a fresh process, and then in a second one, which
    finds it in the persistent cache. The time to build the model is not included.
    """
    with tempfile.TemporaryDirectory() as folder:
        first, again = (
            processes.run(_compile_seconds, config, folder, keep_memory=keep_memory)
            for _ in range(2)
        )
    return {
        'work': 'compile of the training step',
        'compile_seconds': {'JAX': first},
        'from_cache_seconds': again,
    }


def _compile_seconds(config: ConfigDict, folder: str) -> float:
    jax.config.update('jax_compilation_cache_dir', folder)
    step, arguments = abstract_step(config, sharding.single_device_mesh())
    start = time.perf_counter()
    step.lower(*arguments).compile()
    return time.perf_counter() - start


class Step(NamedTuple):
    """The training step with open adapters and a constant learning rate.

    Attributes:
      run: the step; see step.train_step.
      init_state: returns the initial state for `params`.
      params: the model's trainable parameters; arrays, or shapes if the model holds only shapes.
      frozen: the model's other arrays, likewise.
      shardings: the shardings of the state.
    """

    run: Callable
    init_state: Callable[[state.Arrays], state.TrainState]
    params: state.Arrays
    frozen: state.Arrays
    shardings: state.TrainState


def build_step(config: ConfigDict, model: Amuse, mesh: Mesh) -> Step:
    """Build the step that `config.train` describes, for a model with arrays or with shapes only."""
    structure, params, frozen = state.split(model, config.train.trainable)
    optimizer = state.adam(optax.constant_schedule(config.train.learning_rate))
    init_state = functools.partial(state.init_state, optimizer=optimizer, metrics=answering.METRICS)
    shardings = sharding.state_shardings(jax.eval_shape(init_state, params), mesh)
    loss = functools.partial(answering.loss, is_open=True)
    run = train_step(
        loss,
        structure,
        optimizer,
        config.loop.optimization_level,
        shardings,
        parts=config.train.parts or 1,  # the number that fits is found by training alone
        clip_norm=config.train.clip_norm,
    )
    return Step(run, init_state, params, frozen, shardings)


def abstract_step(
    config: ConfigDict, mesh: Mesh, batch: Batch | None = None
) -> tuple[Callable, tuple]:
    """Return the training step on a mesh, and the shapes and shardings of its arguments.

    No arrays are allocated.

    Args:
      config: the sizes.
      mesh: a mesh from sharding.mesh.
      batch: the batch, or None for `train.batch_size` videos: with stored tokens if the towers are
        frozen, otherwise with frames and log-mels.

    Raises:
      StageError: the devices cannot share the batch or a parameter evenly.
    """
    model = _shapes(config)
    if batch is None:
        sharding.local_rows(config.train.batch_size, mesh)
        batch = inputs.random_batch(config, config.train.batch_size, config.train.questions)
        if towers_are_frozen(state.split(model, config.train.trainable)[1]):
            del batch['frames'], batch['log_mel']
            batch |= stored_token_shapes(config, config.train.batch_size, model)
    step = build_step(config, model, mesh)
    initial = jax.eval_shape(step.init_state, step.params)
    initial = jax.tree.map(sharding.abstract_array, initial, step.shardings)
    frozen_shardings = sharding.parameter_shardings(step.frozen, mesh)
    frozen = jax.tree.map(sharding.abstract_array, step.frozen, frozen_shardings)
    batch_sharding = sharding.batch_sharding(mesh)
    batch = {name: sharding.abstract_array(array, batch_sharding) for name, array in batch.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = sharding.abstract_array(key, sharding.replicated(mesh))
    return step.run, (initial, frozen, batch, key)


def stored_token_shapes(
    config: ConfigDict, videos: int, model: Amuse | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the frozen towers' stored tokens.

    Args:
      config: the sizes.
      videos: the number of videos.
      model: a model with shapes only; if None, one is traced.
    """
    frames, log_mel = inputs.media_shapes(config, videos)
    media = jax.ShapeDtypeStruct(frames, jnp.uint8), jax.ShapeDtypeStruct(log_mel, jnp.float32)
    model = model or _shapes(config)
    question_free = jax.eval_shape(InteractiveEncoder.question_free, model.encoder, *media)
    return {
        name: jax.ShapeDtypeStruct(tokens.shape, jnp.dtype(config.model.dtype))
        for name, tokens in zip(QUESTION_FREE, (question_free.visual, question_free.audio))
    }


def useful_flops(config: ConfigDict, batch: Batch | None = None) -> int:
    """Return the FLOPs of a step's matrix products on all devices, without recomputation.

    They are counted for a step that keeps everything for its gradient, so that no product counts
    twice. `batch` is as for `abstract_step`.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.loop.remat_policy = 'everything'
    step, arguments = abstract_step(config, sharding.single_device_mesh(), batch)
    return flops.count_matmul_flops(step.trace(*arguments).jaxpr)


def _shapes(config: ConfigDict) -> Amuse:
    """Return Amuse with shapes instead of arrays."""
    sizes, phrases = AmuseConfig.from_settings(config), inputs.random_phrases()
    return nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
