import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import building, remat
from amuse_jax.run import settings


def layer(x, weights):
    """Products with weights, then products of activations, as in attention."""
    x = x + checkpoint_name(jnp.tanh(checkpoint_name(x @ weights, remat.INNER)), remat.OUT)
    return x + jnp.tanh(0.1 * jnp.einsum('bmc,bnc->bmn', x, x)) @ x


def loss(remat_policy, x, weights):
    run = remat.rematerialise(layer, remat_policy)
    return jnp.sum(jax.lax.scan(lambda x, w: (run(x, w), None), x, weights)[0] ** 2)


def test_settings_know_every_policy():
    assert tuple(remat.POLICIES) == settings.REMAT_POLICIES


@pytest.mark.parametrize('remat_policy', settings.REMAT_POLICIES)
def test_gradients_are_the_same(remat_policy):
    rng = np.random.default_rng(0)
    x, weights = 0.3 * rng.normal(size=(4, 5, 8)), 0.1 * rng.normal(size=(3, 8, 8))
    expected = jax.grad(functools.partial(loss, 'everything'), argnums=(0, 1))(x, weights)
    found = jax.jit(jax.grad(functools.partial(loss, remat_policy), argnums=(0, 1)))(x, weights)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize('in_scan', [True, False])
def test_less_is_kept(in_scan):
    x, weights = jnp.ones((8, 64, 32)), jnp.ones((20, 32, 32))

    def unrolled(remat_policy, x, weights):
        run = remat.rematerialise(layer, remat_policy, in_scan=False)
        for each in weights:
            x = run(x, each)
        return jnp.sum(x**2)

    sizes = {}
    for remat_policy in settings.REMAT_POLICIES:
        function = functools.partial(loss if in_scan else unrolled, remat_policy)
        gradient = jax.jit(jax.grad(function), compiler_options=building.compiler_options(0))
        compiled = gradient.lower(x, weights).compile()
        sizes[remat_policy] = compiled.memory_analysis().temp_size_in_bytes
    assert sizes['inputs'] < sizes['attention'] < sizes['products'] < sizes['everything']


@pytest.mark.parametrize('remat_policy', settings.REMAT_POLICIES)
def test_outside_a_scan_the_second_computation_stays(remat_policy):
    """Without a barrier XLA would merge the two equal computations."""

    def loss(x, weights):
        return jnp.sum(remat.rematerialise(layer, remat_policy, in_scan=False)(x, weights) ** 2)

    program = jax.jit(jax.grad(loss)).lower(jnp.ones((2, 4, 8)), jnp.ones((8, 8))).as_text()
    assert ('optimization_barrier' in program) == (remat_policy != 'everything')
