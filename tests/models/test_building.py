import jax
import numpy as np
from flax import nnx

from amuse_jax.models import building


def make(rngs):
    return nnx.vmap(lambda rngs: nnx.Linear(64, 128, rngs=rngs))(rngs.split(3))


def test_weights_are_those_of_the_initialiser():
    kernel = np.asarray(building.build(make, seed=0).kernel[...])
    np.testing.assert_allclose(kernel.mean(), 0, atol=2e-3)
    np.testing.assert_allclose(kernel.std(), 1 / 8, rtol=2e-2)
    neighbours = np.corrcoef(kernel.reshape(3, -1))  # layers of a stack are independent
    np.testing.assert_allclose(neighbours, np.eye(3), atol=4e-2)


def test_a_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (building.build(make, seed).kernel[...] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(np.ravel(first), np.ravel(other))[0, 1]) < 2e-2


def test_bits_are_balanced_and_keys_differ():
    key = jax.random.key(3, impl=building.HASH)
    bits = np.asarray(jax.random.bits(key, (4096,), 'uint32'))
    share = ((bits[:, None] >> np.arange(32)) & 1).mean(0)
    np.testing.assert_allclose(share, 0.5, atol=0.04)
    assert len(np.unique(bits)) > 4090
    keys = jax.random.key_data(jax.random.split(key, 1000))
    assert len(np.unique(np.asarray(keys), axis=0)) == 1000


def test_shapes_are_those_of_the_model():
    found, expected = building.shapes(make), nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    (structure, found), (expected_structure, expected) = nnx.split(found), nnx.split(expected)
    assert structure == expected_structure
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(one, jax.ShapeDtypeStruct)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
