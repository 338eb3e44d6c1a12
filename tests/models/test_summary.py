import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from amuse_jax.config import HEADS, default_config
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.models import summary
from amuse_jax.models.amuse import Amuse, AmuseConfig, Phrases
from amuse_jax.music_avqa import vocabulary
from configs import demo


@pytest.mark.parametrize('head', HEADS)
def test_parameters_are_those_of_the_model(head):
    config = demo.get_config()
    config.model.head = head
    rows = {row.part: row for row in summary.describe(config)}
    classes = (*vocabulary.INSTRUMENTS, 'player')
    phrases = Phrases.from_settings(QuestionTokenizer(config.model.text), classes)
    sizes = AmuseConfig.from_settings(config)
    amuse = nnx.eval_shape(lambda: Amuse(sizes, phrases, rngs=nnx.Rngs(0)))
    assert rows['Amuse'].parameters == sum(leaf.size for leaf in jax.tree.leaves(amuse))
    assert rows['Amuse'].output[0] == (1, config.train.questions, 42)
    assert 'adapters' in summary.table(config)


def test_flops_in_a_scan_count_once_per_iteration():
    def run(x, stack):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, stack)[0]

    flops, shapes = summary.cost(run, jnp.ones((2, 4)), jnp.ones((3, 4, 4)))
    assert flops == 3 * 2 * 2 * 4 * 4
    assert shapes == ((2, 4),)


@pytest.mark.slow
def test_paper_size():
    rows = {row.part: row for row in summary.describe(default_config())}
    assert rows['visual tower'].parameters == pytest.approx(195e6, rel=0.01)
    assert rows['audio tower'].parameters == pytest.approx(28e6, rel=0.02)
