"""Building a model with random weights in one program that compiles quickly.

Each random array of a model adds code to compile. With JAX's default generator, threefry, compiling
takes half a second of a CPU core per array, which is minutes for a whole model. A hash of a counter
takes a tenth of that, and its numbers are random enough for initial weights. The same seed gives
the same weights on every machine.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.extend import random as extended_random

from amuse_jax.models import platform
from amuse_jax.system import xla

SALTS = np.array([0x9E3779B9, 0x85EBCA6B], np.uint32)
FOLD = np.uint32(0xC2B2AE35)


def build(make: Callable[[nnx.Rngs], nnx.Module], seed: int) -> nnx.Module:
    """Return make(rngs) with random keys from `seed`, compiled as one program.

    Args:
      make: function that builds the model, such as `lambda rngs: SwinV2(config, rngs=rngs)`.
      seed: seed of the random weights.
    """

    def create():
        return make(nnx.Rngs(jax.random.key(seed, impl=HASH)))

    # The program runs once, so optimising it would take longer than it saves.
    return jax.jit(create, compiler_options=compiler_options(0))()


def shapes(make: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """Return make(rngs) with shapes instead of arrays.

    All keys are equal, because deriving them takes as long to trace as everything else.
    """

    def create():
        rngs = nnx.Rngs(0)
        rngs.default = _SameKey(jax.random.key(0), tag='default')
        return make(rngs)

    return nnx.eval_shape(create)


class _SameKey(nnx.RngStream):
    def __call__(self) -> Array:
        return self.key[...]


def compiler_options(level: int) -> dict[str, Any] | None:
    """Return options of jax.jit for CPUs; None on other platforms.

    Args:
      level: XLA's optimisation level, from 0 to 3, its default.
    """
    if platform.current() != 'cpu':
        return None
    return {'xla_backend_optimization_level': level} | xla.cpu_options()


def _mix(x: Array) -> Array:
    """Wellons' lowbias32 hash, a bijection of 32-bit integers.

    Every bit of the input affects every bit of the output.
    """
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
        raise ValueError(f'random numbers of {width} bits; expected 8, 16 or 32')
    counter = jnp.arange(np.prod(shape, dtype=int), dtype=jnp.uint32)
    bits = _mix(_mix(counter + key[0]) ^ key[1]).reshape(shape)
    return bits.astype(f'uint{width}')


HASH = extended_random.define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name='hash'
)
