"""The kernels run in Pallas's interpreter and are compared with the plain path."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amuse_jax.models import platform, windows
from amuse_jax.models.attention import gpu
from amuse_jax.models.window_map import WindowMap

# Map, window, heads, channels of a head, cosine, shifted. Windows of 16, 144 and 25 tokens are one
# part, two parts, and parts with unused rows.
CASES = [
    ((8, 8), 4, 2, 24, False, True),
    ((8, 4), 4, 2, 32, True, True),
    ((12, 12), 12, 2, 32, True, False),
    ((10, 5), 5, 1, 8, False, True),
]
TOLERANCES = {'float32': 2e-6, 'bfloat16': 2e-2}  # relative to the largest value


def draw(size, window, heads, channels, dtype, cosine=True, shifted=False):
    window_map, rng = WindowMap.of(size, window), np.random.default_rng(0)
    window_map = window_map if shifted else window_map.unshifted
    shape, width = (2, size[0] * size[1]), heads * channels
    qkv = jnp.asarray(rng.normal(size=(*shape, 3 * width)), dtype)
    bias = rng.normal(size=(heads, window_map.tokens, window_map.tokens)).astype(np.float32)
    scale = rng.uniform(0.2, 3, heads).astype(np.float32)
    if not cosine:
        scale *= channels**-0.5
    return window_map, (qkv, jnp.asarray(bias), jnp.asarray(scale))


def plain(window_map, cosine, qkv, bias, scale):
    query, key, value = jnp.split(window_map.roll(qkv), 3, axis=-1)
    with platform.compiling_for('cpu'):
        x = windows.attention(query, key, value, bias, scale, window_map, cosine)
    return window_map.roll(x, -1)


def by_kernel(window_map, cosine, *arrays):
    return gpu.attend(*arrays, window_map, cosine)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_the_kernels_compute_attention_and_its_gradients(case, dtype, interpreted):
    compare_with_plain(case, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_the_compiled_kernels_compute_attention_and_its_gradients(case, dtype):
    compare_with_plain(case, dtype)


def compare_with_plain(case, dtype):
    size, window, heads, channels, cosine, shifted = case
    window_map, arrays = draw(size, window, heads, channels, dtype, cosine, shifted)
    gradient = plain(window_map, cosine, *arrays)  # the sums over it do not cancel out
    results = []
    for attend in (plain, by_kernel):
        run = functools.partial(attend, window_map, cosine)
        out, pull_back = jax.vjp(run, *arrays)
        results.append((out, *pull_back(gradient)))
    for expected, found in zip(*results, strict=True):
        expected, found = (np.asarray(x, np.float32) for x in (expected, found))
        atol = TOLERANCES[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=atol, rtol=0)


def test_a_frozen_bias_needs_two_kernels_and_a_trained_one_three(interpreted):
    window_map, arrays = draw((4, 4), 4, 1, 8, 'float32')

    def kernels(count):
        def loss(*trained):
            return jnp.sum(by_kernel(window_map, True, *trained, *arrays[count:]))

        text = str(jax.make_jaxpr(jax.grad(loss, argnums=tuple(range(count))))(*arrays[:count]))
        return text.count('pallas_call')

    assert (kernels(1), kernels(3)) == (2, 3)


@pytest.mark.parametrize('shifted', [False, True])
def test_self_attention_is_the_same_on_every_path(shifted, interpreted):
    """A padded map: 6 x 7 tokens in windows of 4."""
    window_map, rng = WindowMap.of((6, 7), 4), np.random.default_rng(0)
    window_map = window_map if shifted else window_map.unshifted
    shapes = (2, 42, 16), (16, 48), (48,), (2, 16, 16)
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    arguments = *arrays, jnp.ones(2), window_map
    found = windows.self_attention(*arguments, cosine=True)
    with platform.compiling_for('cpu'):
        expected = windows.self_attention(*arguments, cosine=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_large_window_takes_the_plain_path(interpreted):
    side = int(gpu.MAX_TOKENS**0.5) + 1
    window_map = WindowMap.of((side, side), side)
    arrays = jnp.ones((1, side**2, 8)), jnp.ones((8, 24)), jnp.ones(24)
    bias = jnp.zeros((1, side**2, side**2))
    run = functools.partial(windows.self_attention, window_map=window_map)
    assert 'pallas_call' not in str(jax.make_jaxpr(run)(*arrays, bias, jnp.ones(1)))
