import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.errors import StageError
from amuse_jax.training import state


class Model(nnx.Module):
    def __init__(self, rngs):
        self.tower = nnx.BatchNorm(3, rngs=rngs)
        self.answer = nnx.List([nnx.Linear(3, 2, rngs=rngs)])
        self.scale = nnx.Param(jnp.full((2,), 1.5))  # of weak type

    def __call__(self, x):
        return self.answer[0](self.tower(x, use_running_average=True)) * self.scale[...]


def test_split_selects_parameters_by_name_and_merge_undoes_it():
    model = Model(nnx.Rngs(0))
    structure, params, frozen = state.split(model, 'answer|tower')
    assert set(params) == {'answer.0.bias', 'answer.0.kernel', 'tower.bias', 'tower.scale'}
    assert set(frozen) == {'tower.mean', 'tower.var', 'scale'}  # statistics never train
    x = jnp.ones((4, 3))
    np.testing.assert_array_equal(structure.merge(params | frozen)(x), model(x))
    assert not any(array.weak_type for array in (params | frozen).values())


def test_all_selects_every_parameter_and_no_statistic():
    _, params, frozen = state.split(Model(nnx.Rngs(0)), 'all')
    assert set(frozen) == {'tower.mean', 'tower.var'}
    assert set(params) == {
        'answer.0.bias', 'answer.0.kernel', 'tower.bias', 'tower.scale', 'scale',
    }  # fmt: skip


def test_split_of_an_abstract_model_has_the_same_names():
    _, params, _ = state.split(Model(nnx.Rngs(0)), 'answer')
    abstract = nnx.eval_shape(lambda: Model(nnx.Rngs(0)))
    _, shapes, _ = state.split(abstract, 'answer')
    assert {n: a.shape for n, a in params.items()} == {n: a.shape for n, a in shapes.items()}


@pytest.mark.parametrize(
    'pattern, message', [('adapters', 'answer, scale, tower'), ('(', 'not a regular expression')]
)
def test_a_useless_pattern_is_explained(pattern, message):
    with pytest.raises(StageError, match=message):
        state.split(Model(nnx.Rngs(0)), pattern, 'pretrain.trainable')
    with pytest.raises(StageError, match='^pretrain.trainable '):
        state.split(Model(nnx.Rngs(0)), pattern, 'pretrain.trainable')


def test_the_optimiser_state_covers_only_trainable_parameters():
    _, params, _ = state.split(Model(nnx.Rngs(0)), 'answer')
    initial = state.init_state(params, state.adam(lambda step: 1e-3), ('loss',))
    sizes = sorted(leaf.size for leaf in jax.tree.leaves(initial.opt_state))
    assert sizes == [1, 1, 2, 2, 6, 6]  # two counts, two moments of each parameter


def test_the_rate_halves_every_five_epochs():
    schedule = state.stepped_schedule(1e-4, steps_per_epoch=7, every=5, factor=0.5)
    rates = [float(schedule(jnp.int32(7 * epoch))) for epoch in (0, 4, 5, 9, 10, 15)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5, 1.25e-5])
    assert float(schedule(jnp.int32(34))) == pytest.approx(1e-4)


def test_the_head_rate_warms_up_and_falls():
    schedule = state.warmup_cosine_schedule(1e-3, steps=100, warmup=10, final_share=0.1)
    rates = [float(schedule(step)) for step in range(101)]
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert 0 < rates[0] < rates[5] < rates[10] > rates[50] > rates[99]
    assert rates[100] == pytest.approx(1e-4)
    constant = state.warmup_cosine_schedule(1e-3, steps=50, warmup=0, final_share=1.0)
    np.testing.assert_allclose([constant(step) for step in (0, 20, 50)], 1e-3, rtol=1e-6)


def test_a_warm_up_rises_to_the_schedule_and_then_follows_it():
    halving = state.stepped_schedule(8e-4, steps_per_epoch=4, every=1, factor=0.5)
    warm = state.warmed_up(halving, 3)
    found = [float(warm(step)) for step in range(9)]
    np.testing.assert_allclose(found, np.array([2, 4, 6, 8, 4, 4, 4, 4, 2]) * 1e-4, rtol=1e-6)
    assert state.warmed_up(halving, 0) is halving


@pytest.mark.parametrize(
    ('epochs', 'per_epoch', 'steps', 'expected'),
    [
        (0.5, 1161, 11610, 580),  # version 1 of MUSIC-AVQA
        (0.5, 1, 20, 10),  # ten videos
        (0.5, 30, 600, 100),
        (3.0, 10, 40, 30),  # longer than half of all steps, as asked for
        (0.0, 1, 20, 0),
    ],
)
def test_the_warm_up_of_a_small_data_set_has_steps_too(epochs, per_epoch, steps, expected):
    assert state.warmup_steps(epochs, per_epoch, steps) == expected
