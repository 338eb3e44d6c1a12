"""How long the training step takes to compile, in a first run and in those after it."""

import functools
import tempfile
import time
from collections.abc import Callable

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amuse_jax.benchmark import inputs, processes
from amuse_jax.models.amuse import Amuse, AmuseConfig
from amuse_jax.models.interactive_encoder import InteractiveEncoder
from amuse_jax.training import answering, sharding, state
from amuse_jax.training.answering import FRONT
from amuse_jax.training.step import train_step


def training_step(config: ConfigDict, keep_memory: bool) -> dict:
    """The step as it is trained, on stored tokens: traced, lowered and compiled in a fresh process,
    and again in another one, which finds it in the persistent cache."""
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
    begun = time.perf_counter()
    step, given = abstract_step(config, sharding.single())
    step.lower(*given).compile()
    return time.perf_counter() - begun


def abstract_step(config: ConfigDict, mesh: Mesh) -> tuple[Callable, tuple]:
    """The training step of `train.batch_size` videos on a mesh, and the shapes and shardings of
    what it is called with; nothing is allocated."""
    sizes, phrases = AmuseConfig.from_settings(config), inputs.phrases()
    model = nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
    structure, params, frozen = state.split(model, config.train.trainable)
    optimizer = state.adam(optax.constant_schedule(config.train.learning_rate))
    loss = functools.partial(answering.loss, is_open=True)
    begun = jax.eval_shape(lambda given: state.fresh(given, optimizer, answering.METRICS), params)
    shardings = sharding.of_state(begun, mesh)
    step = train_step(
        loss,
        structure,
        optimizer,
        config.loop.optimization_level,
        shardings,
        config.train.parts,
    )

    batch = inputs.draw(config, config.train.batch_size, config.train.questions)
    media = batch.pop('frames'), batch.pop('log_mel')
    front = jax.eval_shape(InteractiveEncoder.front, model.encoder, *media)
    for name, tokens in zip(FRONT, (front.visual, front.audio)):
        batch[name] = jax.ShapeDtypeStruct(tokens.shape, config.train.encoded_dtype)
    begun = jax.tree.map(sharding.shape, begun, shardings)
    frozen = jax.tree.map(sharding.shape, frozen, sharding.of_parameters(frozen, mesh))
    batch = {
        name: sharding.shape(array, sharding.of_batches(mesh)) for name, array in batch.items()
    }
    key = sharding.shape(jax.eval_shape(lambda: jax.random.key(0)), sharding.whole(mesh))
    return step, (begun, frozen, batch, key)
