"""Rows of the config's peer: a forward pass and a training step, in JAX alone.

python -m amuse_jax.benchmark --config=configs/peers/avst.py --rows=peer,peer-step

The networks that run beforehand do not count. Inputs and weights are random.
"""

import functools

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.benchmark import comparison
from amuse_jax.benchmark.comparison import Comparison, Results, Side
from amuse_jax.data import train_words
from amuse_jax.data.pipeline import Batch
from amuse_jax.errors import StageError
from amuse_jax.models import building
from amuse_jax.models.peers import catalogue, question, sizes
from amuse_jax.training import sharding, state
from amuse_jax.training.peers import answering
from amuse_jax.training.step import train_step

JAX_ALONE = ''  # the kind of these rows


def forward(config: ConfigDict, with_compile: bool, videos: int = 1) -> Comparison:
    """Measure the answers to one question about each video.

    Args:
      config: the sizes; `peer.name` names the peer.
      with_compile: as for other rows; there is no PyTorch side.
      videos: the number of videos.

    Raises:
      StageError: the config has no peer.
    """
    structure, arrays = state.flatten(_build(config))
    arrays, batch = jax.device_put((arrays, random_batch(config, videos)))

    def answer(arrays, batch):
        return answering.answer(structure.merge(arrays), batch)[1]

    program = comparison.compile_program(answer, arrays, batch)

    def run() -> Results:
        return {'logits': np.asarray(program.call(arrays, batch))}

    held = comparison.jax_bytes((arrays, batch))
    side = Side(run, held, program.seconds, program.planned_bytes)
    return _alone(config, 'forward', videos, program.flops, side)


def training_step(config: ConfigDict, with_compile: bool, videos: int = 1) -> Comparison:
    """Measure a training step with one question about each video; see `forward`.

    It is the step of the stage train: both losses, the gradient, and Adam.
    """
    peer = config.peer
    structure, params, frozen = state.split(_build(config), peer.trainable, 'peer.trainable')
    mesh, adam = sharding.single_device_mesh(), state.adam(lambda step: peer.learning_rate)
    init = functools.partial(state.init_state, optimizer=adam, metrics=answering.METRICS)
    shardings = sharding.state_shardings(jax.eval_shape(init, params), mesh)
    step = train_step(
        functools.partial(answering.loss, match_weight=peer.match_weight),
        structure,
        adam,
        config.loop.optimization_level,
        shardings,
    )
    train_state, batch = (
        sharding.shard_params(init(params), shardings),
        random_batch(config, videos),
    )
    side, flops = comparison.training_side(step, train_state, frozen, batch, 'loss')
    return _alone(config, 'training step', videos, flops, side)


def random_batch(config: ConfigDict, videos: int) -> Batch:
    """Return a batch of the peer's training with random inputs and one question per video."""
    random = np.random.default_rng(0)
    given = {
        name: _random(random, shape)
        for name, shape in sizes.abstract_inputs(config, videos).items()
    }
    asked = {'words': np.zeros((videos, train_words.LENGTH), np.int32)}
    if config.peer.name == 'lstta':
        asked = {'words': given.pop('words'), 'word_mask': given.pop('mask')}
    elif given['question'].dtype == np.int32:
        asked['words'] = given.pop('question')
    else:
        asked['question_vectors'] = given.pop('question')
    if 'words' in given:  # CLIP's
        asked['words_vectors'] = given.pop('words')
    batch = given | {name: array[:, None] for name, array in asked.items()}
    return batch | {
        'answers': random.integers(0, 42, (videos, 1), np.int32),
        'weights': np.ones((videos, 1), np.float32),
    }


def _random(random: np.random.Generator, shape: jax.ShapeDtypeStruct) -> np.ndarray:
    if shape.dtype == np.uint8:
        return random.integers(0, 256, shape.shape, np.uint8)
    if shape.dtype == np.int32:
        return random.integers(0, question.VOCABULARY, shape.shape, np.int32)
    if shape.dtype == bool:
        return np.ones(shape.shape, bool)
    return random.normal(size=shape.shape).astype(np.float32)


def _build(config: ConfigDict) -> nnx.Module:
    if not config.peer.name:
        raise StageError(
            'the rows peer and peer-step measure the peer of a config, and config.peer.name is '
            'empty; use a config such as configs/peers/avst.py'
        )
    return building.build(lambda rngs: sizes.build(config, question.VOCABULARY, rngs), config.seed)


def _alone(config: ConfigDict, work: str, videos: int, flops: float, side: Side) -> Comparison:
    counts = 'one video' if videos == 1 else f'{videos} videos'
    title = f'{catalogue.find(config.peer.name).title}, {work}, {counts}'
    return Comparison(title, JAX_ALONE, videos, flops, {'JAX': side})
