"""Random numbers of a batch's shards: each device draws its own part of the batch's numbers.

Each device runs the training step on its own videos. It must draw the numbers that a single device
would have drawn for them, because the mesh does not change the result. A key of the kind below
holds the number of its shard. An array that is drawn with it is the shard's part of an array for
the whole batch: its leading axis is sharded like the videos.

The numbers are those of JAX's default generator, threefry, which hashes each element's position in
the array. A shard adds the number of elements before it to its positions.
"""

import jax
import jax.numpy as jnp
from jax.extend import random as extended_random


def shard_key(key: jax.Array, shard: jax.Array | int) -> jax.Array:
    """Return the key with which a shard draws its part of the batch's numbers.

    Args:
      key: the key of the whole batch.
      shard: () integer, the number of the shard.
    """
    words = jax.random.bits(key, (2,), jnp.uint32)
    data = jnp.append(words, jnp.asarray(shard).astype(jnp.uint32))
    return jax.random.wrap_key_data(data, impl=SHARDED)


def _plain(key: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(key[:2], impl='threefry2x32')


def _seed(seed: jax.Array) -> jax.Array:
    words = jax.random.key_data(jax.random.key(seed, impl='threefry2x32'))
    return jnp.append(words, jnp.uint32(0))


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    return jnp.append(jax.random.key_data(jax.random.fold_in(_plain(key), data)), key[2])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    words = jax.random.key_data(jax.random.split(_plain(key), shape))
    return jnp.concatenate([words, jnp.broadcast_to(key[2], (*shape, 1))], axis=-1)


def _bits(key: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
    if width not in (8, 16, 32):
        raise ValueError(f'random numbers of {width} bits; expected 8, 16 or 32')
    size = 1
    position = jnp.zeros(shape, jnp.uint32)
    for axis in reversed(range(len(shape))):
        position += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(size)
        size *= shape[axis]
    position += key[2] * jnp.uint32(size % 2**32)
    high = jnp.zeros_like(position)  # positions of 2**32 and more begin again
    first, second = extended_random.threefry2x32_p.bind(key[0], key[1], high, position)
    return (first ^ second).astype(f'uint{width}')


SHARDED = extended_random.define_prng_impl(
    key_shape=(3,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name='sharded'
)
