import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amuse_jax.models.attention import multihead


def draw(*shapes, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def test_a_query_that_may_attend_to_nothing_gets_zeros_and_zero_gradients():
    arrays = draw((3, 4, 8), (3, 5, 8), (3, 5, 8))
    mask = np.ones((3, 5), bool)
    mask[1], mask[2, 3:] = False, False

    def run(*arrays):
        return multihead.attend_heads(*arrays, 2, jnp.asarray(mask))

    found, pull_back = jax.vjp(run, *arrays)
    np.testing.assert_array_equal(found[1], 0)
    for gradient in pull_back(jnp.ones_like(found)):
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[1], 0)
    shorter = multihead.attend_heads(arrays[0][2], *(x[2, :3] for x in arrays[1:]), 2)
    np.testing.assert_allclose(found[2], shorter, atol=1e-6)


@pytest.mark.parametrize('lead', [((2, 3), (2, 1)), ((3,), (2, 3)), ((), (2,))])
def test_gradients_of_scores_with_axes_that_broadcast(lead):
    query, key = draw((*lead[0], 4, 8), (*lead[1], 5, 8))

    def plain(query, key):
        return jnp.einsum('...qd,...kd->...qk', query, key)

    expected, plain_back = jax.vjp(plain, query, key)
    found, pull_back = jax.vjp(multihead.scores, query, key)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    (gradient,) = draw(expected.shape)
    for ours, theirs in zip(pull_back(gradient), plain_back(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_scores_of_bfloat16_are_float32_and_its_gradients_are_bfloat16_products():
    query, key = draw((4, 8), (5, 8), dtype=jnp.bfloat16)
    assert multihead.scores(query, key).dtype == jnp.float32
    gradient = jax.grad(lambda *x: multihead.scores(*x).sum(), argnums=(0, 1))
    products = [
        equation
        for equation in jax.make_jaxpr(gradient)(query, key).eqns
        if equation.primitive.name == 'dot_general'
    ]
    assert products
    for equation in products:
        assert {x.aval.dtype for x in equation.invars} == {jnp.dtype('bfloat16')}
