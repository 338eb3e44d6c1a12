"""Attention to candidates as plain NumPy; its kernel, interpreted; and its form for TPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amuse_jax.models.attention import candidates

TOLERANCES = {'float32': 2e-6, 'bfloat16': 2e-2}  # relative to the largest value


def test_every_token_attends_to_its_own_candidates():
    rng = np.random.default_rng(0)
    query, *others = (rng.normal(size=(5, n)).astype(np.float32) for n in (8, 16, 16, 16))
    expected = np.zeros((5, 8))
    for token in range(5):
        for channels in (slice(0, 4), slice(4, 8)):
            keys, values = (
                np.stack([np.split(x[token], 2)[i][channels] for x in others]) for i in (0, 1)
            )
            weights = np.exp(keys @ query[token, channels] / 2)
            expected[token, channels] = weights / weights.sum() @ values
    found = candidates.attend(jnp.asarray(query), [jnp.asarray(x) for x in others], heads=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('heads, channels', [(2, 8), (1, 24)])
def test_the_kernels_compute_the_same_and_the_gradients(heads, channels, dtype, interpreted):
    compare_with_plain(heads, channels, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_compiled_kernels_compute_the_same_and_the_gradients(dtype):
    compare_with_plain(4, 64, dtype)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('heads, channels', [(2, 8), (1, 24)])
def test_heads_that_stay_together_compute_the_same_and_the_gradients(heads, channels, dtype):
    def attend(query, joined, heads):
        keys, values = zip(*(jnp.split(each, 2, axis=-1) for each in joined))
        return candidates.attend_on_tpu(query, keys, values, heads)

    compare_with_plain(heads, channels, dtype, attend)


def compare_with_plain(heads, channels, dtype, attend=candidates.attend):
    """Leading axes broadcast, and the last block of rows is not full."""
    rng, width = np.random.default_rng(0), heads * channels
    shapes = (2, 1, 11, width), (2, 1, 11, 2 * width), (2, 3, 11, 2 * width), (2, 3, 11, 2 * width)
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    gradient = jnp.asarray(rng.normal(size=(2, 3, 11, width)), dtype)
    results = []
    for function in (candidates.plain, attend):
        out, pull_back = jax.vjp(lambda q, *c: function(q, c, heads), *arrays)  # noqa: B023
        results.append((out, *pull_back(gradient)))
    for expected, found in zip(*results, strict=True):
        expected, found = (np.asarray(x, np.float32) for x in (expected, found))
        atol = TOLERANCES[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=atol, rtol=0)
