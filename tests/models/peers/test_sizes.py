"""The configs' peers have the published sizes, and the inputs that the models take."""

import importlib
import math
import re

import jax
import pytest

from amuse_jax.models import building, summary
from amuse_jax.models.peers import catalogue, question, sizes
from amuse_jax.training import state
from configs import demo


def paper(name):
    return importlib.import_module(f'configs.peers.{name}').get_config()


@pytest.mark.parametrize('name', [name for name in sizes.SIZES if name != 'pstp_released'])
def test_a_papers_config_gives_the_published_sizes(name):
    words = summary.BERT_WORDS if name == 'lstta' else question.VOCABULARY
    assert sizes.from_settings(paper(name), words) == catalogue.find(name).config


# Parameters that get a gradient, counted from the sizes that the papers and the code state.
TRAINED = {
    'avst': 7_916_716,
    'pstp_released': 2_453_546,
    'lavish': 18_340_844,  # with 81,024 of the tower's norms
    'dgsct': 186_336_456 + 66_870_444,
}


@pytest.mark.parametrize('name', TRAINED)
def test_as_many_parameters_are_trained_as_in_the_original(name):
    config = paper(name)
    model = building.shapes(lambda rngs: sizes.build(config, question.VOCABULARY, rngs))
    _, trained, frozen = state.split(model, config.peer.trainable)
    assert sum(math.prod(array.shape) for array in trained.values()) == TRAINED[name]
    prefixes = tuple(sizes.TOWERS.get(name, {}))
    assert all(parameter.startswith(prefixes) for parameter in frozen)
    if name == 'lavish':
        towers = [parameter for parameter in trained if parameter.startswith('swin.')]
        assert towers and all(re.search('norm', parameter) for parameter in towers)


@pytest.mark.parametrize('name', sizes.SIZES)
def test_the_models_take_the_inputs_of_the_papers_and_of_the_stand_ins(name):
    small = demo.get_config()
    small.peer.update(small.peers[name], name=name)
    config = paper(name)
    for each in (config.model.visual, config.model.audio):  # shapes alone, but tracing takes long
        each.depths = (1, 1, 6 if name == 'lstta' else 1, 1)
    for each in (small, config):
        model = building.shapes(lambda rngs: sizes.build(each, 50, rngs))  # noqa: B023
        inputs = sizes.abstract_inputs(each, videos=2)
        logits = jax.eval_shape(lambda peer, inputs: peer(inputs).logits, model, inputs)
        assert logits.shape == (2, 42)
