"""The first steps of training must not throw away what a model already knows."""

import functools

import jax
import numpy as np
import pytest

from amuse_jax.benchmark import inputs
from amuse_jax.config import HEADS, default_config
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.models import building
from amuse_jax.models.amuse import Amuse, AmuseConfig, Phrases
from amuse_jax.models.summary import CLASSES
from amuse_jax.training import sharding, state
from amuse_jax.training.step import train_step
from amuse_jax.training.train import answering
from amuse_jax.training.train import stage as train

STEPS = 5
LITTLE = 0.1  # largest rise of the loss in a step; the logarithm of 42 answers is 3.7


def small(head):
    """Return a config with the default head and training, and a small text tower alone."""
    config = default_config()
    config.without, config.model.head = 'encoder', head
    config.data.segments = config.rois.regions = 4
    config.model.text.update(
        tokenizer='questions', max_words=9, width=128, depth=2, heads=4, mlp_width=256
    )
    config.model.visual.width = config.model.audio.width = 24
    config.model.answer.dropout = 0.0
    return config


def losses(config):
    """Return the loss before each step, on a data set of one batch."""
    phrases = Phrases.from_settings(QuestionTokenizer(config.model.text), CLASSES)
    sizes = AmuseConfig.from_settings(config)
    model = building.build(lambda rngs: Amuse(sizes, phrases, rngs=rngs), 0)
    structure, params, frozen = state.split(model, 'all')
    optimizer = state.adam(train._schedule(config.train, True, steps_per_epoch=1))
    now = state.init_state(params, optimizer, answering.METRICS)
    mesh = sharding.single_device_mesh()
    shardings = sharding.state_shardings(jax.eval_shape(lambda: now), mesh)
    step = train_step(
        functools.partial(answering.loss, is_open=False), structure, optimizer, 0, shardings,
        clip_norm=config.train.clip_norm,
    )  # fmt: skip
    batch = inputs.random_batch(config, videos=4, questions=5)
    batch['words'] = batch['words'] % phrases.vocab_size
    batch = {name: x for name, x in batch.items() if name not in ('frames', 'log_mel')}
    found, seen = [], np.zeros(2)
    now = sharding.shard_params(now, shardings)
    for _ in range(STEPS):
        now, is_finite = step(now, frozen, batch, jax.random.key(0))
        assert is_finite
        sums = np.array(now.sums['loss'])
        (total, weight), seen = sums - seen, sums
        found.append(total / weight)
    return found


@pytest.mark.slow
@pytest.mark.parametrize('head', HEADS)
def test_with_the_defaults_no_first_step_raises_the_loss(head):
    found = losses(small(head))
    assert max(np.diff(found)) < LITTLE
    assert found[-1] < found[0]
