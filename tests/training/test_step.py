import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from amuse_jax.models import platform
from amuse_jax.training import sharding, state
from amuse_jax.training.step import train_step

VIDEOS = 8


class Model(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(3, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)


def loss(model, batch, rngs, drops=False):
    logits = model.layer(batch['x'])
    if drops:
        logits = model.dropout(logits, rngs=rngs)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, batch['y'])
    total, count = (batch['weights'] * each).sum(), batch['weights'].sum()
    return total / jnp.maximum(count, 1), {'loss': jnp.stack([total, count])}


def batch():
    random = np.random.default_rng(0)
    return {
        'x': random.normal(size=(VIDEOS, 2, 3)).astype(np.float32),
        'y': random.integers(0, 4, (VIDEOS, 2)).astype(np.int32),
        'weights': random.integers(0, 2, (VIDEOS, 2)).astype(np.float32),
    }


def run(parts, given, loss=loss, **options):
    mesh = sharding.single_device_mesh()
    structure, params, frozen = state.split(Model(nnx.Rngs(0)), '.')
    optimizer = state.adam(lambda _: 1e-2)
    initial = state.init_state(params, optimizer, ('loss',))
    shardings = jax.tree.map(lambda _: sharding.replicated(mesh), initial)
    step = train_step(loss, structure, optimizer, 0, shardings, parts, **options)
    after, is_finite = step(initial, frozen, given, jax.random.key(0))
    return after, bool(is_finite)


@pytest.mark.parametrize('parts', [2, 4, 8])
def test_a_batch_in_parts_gives_the_same_step(parts):
    (whole, _), (found, is_finite) = run(1, batch()), run(parts, batch())
    assert is_finite
    moments = [(x.opt_state[0].mu, x.params, x.sums) for x in (whole, found)]
    for ours, theirs in zip(*map(jax.tree.leaves, moments), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-7)


def test_parts_of_padding_have_no_weight():
    given = batch()
    given['weights'][::2] = 0  # the whole first part of two
    (whole, _), (found, _) = run(1, given), run(2, given)
    for name, array in whole.params.items():
        np.testing.assert_allclose(found.params[name], array, rtol=1e-5)


def test_one_bad_part_refuses_the_step():
    given = batch()
    given['x'][3] = np.nan
    given['weights'][3] = 1
    after, is_finite = run(4, given)
    assert not is_finite and int(after.refused) == 1
    np.testing.assert_array_equal(after.params['layer.bias'], 0)


@pytest.mark.parametrize('target', ['cpu', 'gpu', 'tpu'])
@pytest.mark.parametrize('is_bad', [False, True])
def test_the_update_and_its_refusal_are_the_same_for_every_platform(target, is_bad):
    given = batch()
    given['weights'][:] = 1
    expected, _ = run(1, given)
    if is_bad:
        given['x'][3] = np.inf
    with platform.compiling_for(target):
        after, is_finite = run(1, given)
    assert is_finite != is_bad
    if is_bad:
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(after.opt_state))
        np.testing.assert_array_equal(after.params['layer.bias'], 0)
    else:
        jax.tree.map(np.testing.assert_allclose, after.params, expected.params)


def test_every_part_has_its_own_dropout():
    same = {name: np.repeat(array[:1], VIDEOS, 0) for name, array in batch().items()}
    same['weights'][:] = 1

    def dropping(*arguments):
        return loss(*arguments, drops=True)

    one_part = {name: array[:2] for name, array in same.items()}
    (whole, _), (part, _) = run(4, same, dropping), run(1, one_part, dropping)
    assert not np.allclose(
        whole.opt_state[0].mu['layer.kernel'], part.opt_state[0].mu['layer.kernel']
    )


def norm_of_first_moment(after):
    return float(optax.tree.norm(after.opt_state[0].mu)) / 0.1  # Adam's mu is 0.1 of the gradient


@pytest.mark.parametrize('parts', [1, 4])
def test_a_large_gradient_is_scaled_down_to_the_limit_and_a_small_one_stays(parts):
    free, _ = run(parts, batch())
    norm = norm_of_first_moment(free)
    clipped, _ = run(parts, batch(), clip_norm=norm / 4)
    assert norm_of_first_moment(clipped) == pytest.approx(norm / 4, rel=1e-5)
    for ours, theirs in zip(*(jax.tree.leaves(x.opt_state[0].mu) for x in (clipped, free))):
        np.testing.assert_allclose(ours, theirs / 4, rtol=1e-4, atol=1e-8)
    loose, _ = run(parts, batch(), clip_norm=norm * 2)
    jax.tree.map(np.testing.assert_array_equal, loose.params, free.params)


def test_a_gradient_that_is_not_finite_is_refused_with_a_limit_too():
    given = batch()
    given['x'][3] = np.inf
    given['weights'][3] = 1
    after, is_finite = run(1, given, clip_norm=1.0)
    assert not is_finite and int(after.refused) == 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))
