import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.training import shard_random

SHARDS, ROWS = 4, 3


def draw_all(shape, draw):
    """Return what one device draws for the whole batch, and what the shards draw together."""
    key = jax.random.key(5)
    whole = draw(shard_random.shard_key(key, 0), (SHARDS * ROWS, *shape))
    each = [draw(shard_random.shard_key(key, shard), (ROWS, *shape)) for shard in range(SHARDS)]
    return np.asarray(whole), np.concatenate(each)


@pytest.mark.parametrize('shape', [(), (7,), (2, 5)])
@pytest.mark.parametrize('dtype', [jnp.uint8, jnp.uint16, jnp.uint32])
def test_shards_draw_their_part_of_the_batch(shape, dtype):
    whole, parts = draw_all(shape, lambda key, shape: jax.random.bits(key, shape, dtype))
    np.testing.assert_array_equal(parts, whole)
    assert len(np.unique(whole)) > 0.5 * min(whole.size, 2 ** (8 * whole.itemsize))


def test_keys_made_from_a_shard_key_stay_in_their_shard():
    def draw(key, shape):
        key = jax.random.split(jax.random.fold_in(key, 9), (2, 3))[1, 2]
        return jax.random.normal(nnx.Rngs(key).dropout(), shape)

    whole, parts = draw_all((11,), draw)
    np.testing.assert_array_equal(parts, whole)


def test_the_numbers_are_those_of_threefry():
    key = jax.random.key(5)
    words = jax.random.bits(key, (2,), jnp.uint32)
    expected = jax.random.bits(jax.random.wrap_key_data(words, impl='threefry2x32'), (6, 4))
    found = jax.random.bits(shard_random.shard_key(key, 0), (6, 4))
    np.testing.assert_array_equal(found, expected)


def test_keys_can_be_split_folded_and_mapped():
    key = shard_random.shard_key(jax.random.key(0), jnp.int32(2))
    keys = jax.random.split(key, 3)
    numbers = jax.vmap(lambda key: jax.random.bits(key, (4,)))(keys)
    assert numbers.shape == (3, 4) and len(np.unique(numbers)) == 12
    with pytest.raises(ValueError, match='64 bits; expected 8, 16 or 32'):
        with jax.enable_x64(True):
            jax.random.bits(key, (2,), jnp.uint64)
