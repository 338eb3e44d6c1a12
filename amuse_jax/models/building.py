"""Building a model with random weights in one program that compiles quickly.

Every random array of a model is code to compile. JAX's own generator, threefry, costs half a second
of a CPU core per array, minutes for a whole model; a hash of a counter costs a tenth of that and is
random enough to start training from. The same seed gives the same weights on every machine.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.extend import random as extended_random

from amuse_jax.models import platform

SALTS = np.array([0x9E3779B9, 0x85EBCA6B], np.uint32)
FOLD = np.uint32(0xC2B2AE35)


def build(make: Callable[[nnx.Rngs], nnx.Module], seed: int) -> nnx.Module:
    """Calls `make` with random keys of `seed`, compiled as one program.

    Args:
      make: e.g. `lambda rngs: SwinV2(config, rngs=rngs)`.
      seed: of the weights.
    Returns:
      What `make` returns.
    """

    def create():
        return make(nnx.Rngs(jax.random.key(seed, impl=HASH)))

    # It runs once: time spent on optimising it is lost.
    return jax.jit(create, compiler_options=optimized(0))()


def optimized(level: int) -> dict[str, int] | None:
    """Options of jax.jit: how hard XLA works at code for CPUs, from 0 to its default of 3."""
    return {'xla_backend_optimization_level': level} if platform.current() == 'cpu' else None


def _mix(x: Array) -> Array:
    """Wellons' lowbias32: a bijection of 32-bit integers in which every bit changes every other."""
    for factor in (0x7FEB352D, 0x846CA68B):
        x = (x ^ (x >> 16)) * np.uint32(factor)
    return x ^ (x >> 16)


def _seed(seed: Array) -> Array:
    return _mix(jnp.asarray(seed).astype(jnp.uint32) + SALTS)


def _fold_in(key: Array, data: Array) -> Array:
    return _mix(_mix(key + SALTS) ^ jnp.asarray(data).astype(jnp.uint32) * FOLD)


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    places = jnp.arange(np.prod(shape, dtype=int), dtype=jnp.uint32)
    return jax.vmap(lambda place: _fold_in(key, place))(places).reshape(*shape, 2)


def _bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    if width not in (8, 16, 32):
        raise ValueError(f'{width} random bits were asked for; weights are drawn from at most 32')
    counter = jnp.arange(np.prod(shape, dtype=int), dtype=jnp.uint32)
    bits = _mix(_mix(counter + key[0]) ^ key[1]).reshape(shape)
    return bits.astype(f'uint{width}')


HASH = extended_random.define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name='hash'
)
