"""Run five training steps on virtual devices: `python mesh_steps.py FOLDER MODEL MESH...`.

MODEL is `text`, the text tower with a linear layer, which compiles quickly, or `amuse`, the whole
model. MESH is DATAxFSDPxTENSOR, for example 2x2x2. For each mesh the script writes MESH.npz with
the losses, all updated parameters, Adam's second moments (nu/) and the gradients of the first step
(first/), and MESH.txt with the compiled step.
"""

import functools
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.models import building
from amuse_jax.models.amuse import Amuse, AmuseConfig, Phrases
from amuse_jax.models.text import TextConfig, TextTower
from amuse_jax.music_avqa import vocabulary
from amuse_jax.training import sharding, state
from amuse_jax.training.step import train_step
from amuse_jax.training.train import answering

VIDEOS, QUESTIONS, WORDS, STEPS = 8, 2, 6, 5
ANSWERS = len(vocabulary.ANSWERS)
METRICS = {'text': ('loss',), 'amuse': answering.METRICS}
TINY = runpy.run_path(str(Path(__file__).with_name('conftest.py')))


class Reader(nnx.Module):
    """A text tower with a linear layer that chooses an answer."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs):
        self.text = TextTower(config, rngs=rngs)
        self.choice = nnx.Linear(config.width, ANSWERS, rngs=rngs)

    def loss(self, batch, rngs):
        words, mask = (batch[name].reshape(-1, WORDS) for name in ('words', 'word_mask'))
        log_probabilities = jax.nn.log_softmax(self.choice(self.text(words, mask)[:, 0]))
        right = jnp.take_along_axis(log_probabilities, batch['answers'].reshape(-1, 1), -1)[:, 0]
        weights = batch['weights'].reshape(-1)
        total, count = -(weights * right).sum(), weights.sum()
        return total / count, {'loss': jnp.stack([total, count])}


def build(name: str, config: ConfigDict):
    """Return the model, its loss and its pattern of trainable parameters."""
    tokenizer = QuestionTokenizer(config.model.text)
    if name == 'text':
        sizes = {key: value for key, value in config.model.text.items() if key != 'tokenizer'}
        sizes = TextConfig(vocab_size=tokenizer.vocab_size, **sizes)
        return building.build(lambda rngs: Reader(sizes, rngs), seed=0), Reader.loss, '.'
    phrases = Phrases.from_settings(tokenizer, TINY['CLASSES'])
    sizes = AmuseConfig.from_settings(config)
    model = building.build(lambda rngs: Amuse(sizes, phrases, rngs=rngs), seed=0)
    return model, functools.partial(answering.loss, is_open=True), config.train.trainable


def add_noise(params: state.Arrays) -> state.Arrays:
    """Add noise to all arrays, because new blocks are the identity and would hide errors."""
    random = np.random.default_rng(1)
    return {
        name: np.asarray(array) + 0.1 * random.normal(size=array.shape).astype(np.float32)
        for name, array in params.items()
    }


def draw_batch(config: ConfigDict, seed: int) -> dict[str, np.ndarray]:
    """Draw a random batch with all inputs of the model; the last question is padding."""
    random = np.random.default_rng(seed)
    segments, regions = config.data.segments, config.rois.regions
    side, each = config.data.image_size, (VIDEOS, segments)

    def normal(*shape):
        return random.normal(size=(*each, *shape)).astype(np.float32)

    corners = random.uniform(0, 0.5, (*each, regions, 2)).astype(np.float32)
    weights = np.ones((VIDEOS, QUESTIONS), np.float32)
    weights[-1, -1] = 0
    widths = {'visual': 8 * config.model.visual.width, 'audio': 8 * config.model.audio.width}
    streams = {
        f'{part}_{sense}': normal(width)
        for part in ('rhythm', 'source')
        for sense, width in widths.items()
    }
    return streams | {
        'frames': random.integers(0, 255, (*each, side, side, 3), dtype=np.uint8),
        'log_mel': normal(20, config.audio.mels) - 40,
        'words': random.integers(1, 60, (VIDEOS, QUESTIONS, WORDS)).astype(np.int32),
        'word_mask': np.arange(WORDS) < random.integers(2, WORDS, (VIDEOS, QUESTIONS, 1)),
        'answers': random.integers(0, ANSWERS, (VIDEOS, QUESTIONS)).astype(np.int32),
        'weights': weights,
        'segment_mask': np.arange(segments) < random.integers(1, segments + 1, (VIDEOS, 1)),
        'rhythm': normal(),
        'sources': random.uniform(size=(*each, len(vocabulary.INSTRUMENTS))).astype(np.float32),
        'boxes': np.concatenate([corners, corners + 0.4], -1),
        'classes': random.integers(-1, len(TINY['CLASSES']), (*each, regions)).astype(np.int32),
        'scores': random.uniform(size=(*each, regions)).astype(np.float32),
        'features': normal(regions, config.rois.feature_size),
    }


def run(folder: Path, model_name: str, name: str) -> None:
    """Run the steps on the mesh `name` and write the results to `folder`."""
    config = TINY['tiny_config']()
    model, loss, trainable = build(model_name, config)
    structure, params, frozen = state.split(model, trainable)
    params, frozen = add_noise(params), add_noise(frozen)
    sizes = dict(zip(sharding.AXES, map(int, name.split('x'))))
    mesh = sharding.mesh(ConfigDict(sizes))
    optimizer = state.adam(lambda _: 1e-4)
    train_state = state.init_state(params, optimizer, METRICS[model_name])
    shardings = sharding.state_shardings(train_state, mesh)
    train_state = sharding.shard_params(train_state, shardings)
    frozen = sharding.shard_params(frozen, sharding.parameter_shardings(frozen, mesh))
    key = sharding.shard_params(jax.random.key(3), sharding.replicated(mesh))
    step = train_step(loss, structure, optimizer, 0, shardings)
    losses = []
    for number in range(STEPS):
        sharded = sharding.shard_batch(draw_batch(config, number), mesh)
        if not number:
            step = step.lower(train_state, frozen, sharded, key).compile()
            (folder / f'{name}.txt').write_text(step.as_text())
        before = np.asarray(train_state.sums['loss'])
        train_state, is_finite = step(train_state, frozen, sharded, key)
        assert is_finite
        if not number:
            first = {
                f'first/{n}': 10 * np.asarray(m) for n, m in train_state.opt_state[0].mu.items()
            }
        total, weight = np.asarray(train_state.sums['loss']) - before
        losses.append(total / weight)
    moments = {f'nu/{name}': array for name, array in train_state.opt_state[0].nu.items()}
    np.savez(folder / f'{name}.npz', losses=losses, **train_state.params, **moments, **first)


if __name__ == '__main__':
    jax.config.update('jax_disable_most_optimizations', True)
    for mesh_name in sys.argv[3:]:
        run(Path(sys.argv[1]), sys.argv[2], mesh_name)
