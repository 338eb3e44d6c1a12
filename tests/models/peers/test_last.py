"""LAST and LAST-Att from their description: what reaches the answer."""

import jax
import numpy as np
import pytest

from amuse_jax.errors import StageError
from amuse_jax.models import building, peers
from amuse_jax.models.peers import grounded_head, last, lavish
from amuse_jax.models.swin_v2 import SwinV2Config

TOWER = lavish.LAVISHConfig(
    SwinV2Config(32, 4, 4, (1, 1, 1, 1), (1, 2, 2, 4), 4),
    grounded_head.HeadConfig(16, answers=5, vocabulary=11, match_widths=(12, 8, 6)),
    lavish.AdapterConfig(latents=3, reduction=2, groups=2),
)


@pytest.fixture(scope='module', params=[0, 7], ids=['last', 'last_att'])
def made(request):
    config = last.LASTConfig(TOWER, semantic_width=request.param)
    model = building.build(lambda rngs: last.LAST(config, rngs=rngs), 0)
    inputs = last.example(config, batch=2, seed=0, segments=2)
    run = jax.jit(lambda model, inputs: model(inputs))
    return model, inputs, run


def test_answers_depend_on_every_input(made):
    model, inputs, run = made
    output = run(model, inputs)
    assert output.logits.shape == (2, 5)
    assert (output.semantic is not None) == ('semantic' in inputs)
    np.testing.assert_allclose(output.weights.sum(-1), 1, atol=1e-5)
    for name in inputs.keys() - {'question', 'negative'}:
        changed = run(model, inputs | {name: inputs[name][::-1] * 2})
        assert not np.allclose(changed.logits, output.logits, atol=1e-5), name


def test_examples_of_a_batch_are_apart(made):
    model, inputs, run = made
    mixed = {name: np.stack([x[1], x[1]]) for name, x in inputs.items()}
    np.testing.assert_allclose(run(model, mixed).logits[1], run(model, inputs).logits[1], atol=1e-5)


@pytest.mark.parametrize('name', ['last', 'last_att', 'lstta'])
def test_no_file_holds_their_weights(name):
    with pytest.raises(StageError, match=f'{name} was never released'):
        peers.load(name, 'weights.pt')
