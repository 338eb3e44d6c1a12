"""The norm for TPUs, traced here for the CPU, compared with two passes in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.models import platform
from amuse_jax.models.layer_norm import LayerNorm

EPSILON = 1e-5


def inputs(dtype, mean=0.0):
    random = np.random.default_rng(0)
    shape, width = (3, 5, 96), 96
    x = jnp.asarray(random.normal(mean, 2, shape), dtype)
    gradient = jnp.asarray(random.normal(size=shape), dtype)
    norm = LayerNorm(width, EPSILON, nnx.Rngs(0))
    norm.scale[...] = jnp.asarray(random.normal(size=width), jnp.float32)
    norm.bias[...] = jnp.asarray(random.normal(size=width), jnp.float32)
    return norm, x, gradient


def results(target, norm, x, gradient, trained=True):
    """Return the norm's output and the gradients of x and, if `trained`, of scale and bias."""
    graphdef, params = nnx.split(norm)

    def run(x, params):
        return nnx.merge(graphdef, params)(x).astype(gradient.dtype)

    with platform.compiling_for(target):
        if trained:
            output, pull_back = jax.vjp(run, x, params)
        else:
            output, pull_back = jax.vjp(lambda x: run(x, params), x)
        return jax.tree.leaves((output, pull_back(gradient)))


def exact(norm, x, gradient, trained=True):
    """Return the results in float32, for the same numbers."""
    return results('cpu', norm, x.astype(jnp.float32), gradient.astype(jnp.float32), trained)


def errors(found, expected):
    """Return each result's error, relative to its largest number."""
    for each, wanted in zip(found, expected, strict=True):
        yield float(np.abs(each.astype(jnp.float32) - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize('trained', [False, True])
def test_one_pass_computes_the_norm_and_its_gradients(trained):
    norm, x, gradient = inputs(jnp.bfloat16)
    found = results('tpu', norm, x, gradient, trained)
    assert [each.dtype for each in found] == [jnp.bfloat16] * 2 + [jnp.float32] * 2 * trained
    for error in errors(found, exact(norm, x, gradient, trained)):
        assert error < 2**-8  # as the rounding of numbers to bfloat16


def test_a_mean_of_a_hundred_deviations_leaves_bfloat16_exact():
    norm, x, gradient = inputs(jnp.bfloat16, mean=200.0)
    found = results('tpu', norm, x, gradient)
    for error in errors(found, exact(norm, x, gradient)):
        assert error < 2**-8


def test_float32_takes_two_passes_on_every_platform():
    norm, x, gradient = inputs(jnp.float32)
    for found, expected in zip(results('tpu', norm, x, gradient), exact(norm, x, gradient)):
        np.testing.assert_array_equal(found, expected)


def test_other_platforms_take_two_passes():
    norm, x, gradient = inputs(jnp.bfloat16)
    for target in ('cpu', 'gpu', 'any'):
        with platform.compiling_for(target):
            found = norm(x)
        np.testing.assert_array_equal(found, exact(norm, x, gradient)[0])


def test_a_constant_input_has_finite_gradients():
    norm, x, gradient = inputs(jnp.bfloat16)
    for each in results('tpu', norm, jnp.full_like(x, 3.0), gradient):
        assert np.isfinite(np.asarray(each, np.float32)).all()
