import jax
import pytest

from amuse_jax.benchmark import compiling
from amuse_jax.training import sharding
from amuse_jax.training.train.answering import QUESTION_FREE, TOWERS
from tests.benchmark import tiny


@pytest.mark.parametrize(
    ('trainable', 'is_finetuned'), [('adapters|text|answer', False), ('.', True)]
)
def test_a_step_gets_frames_only_if_the_towers_train(trainable, is_finetuned):
    config = tiny.get_config()
    config.train.trainable = trainable
    step, arguments = compiling.abstract_step(config, sharding.single_device_mesh())
    train_state, frozen, batch, _ = arguments
    assert ('frames' in batch, QUESTION_FREE[0] in batch) == (is_finetuned, not is_finetuned)
    assert any(name.startswith(TOWERS) for name in train_state.params) == is_finetuned
    traced = step.trace(*arguments)
    after, _ = traced.out_info
    before = jax.tree.map(lambda x: (x.shape, x.dtype), train_state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == before
