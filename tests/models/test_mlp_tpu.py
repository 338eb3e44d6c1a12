"""The MLP's kernels for TPUs in interpret mode, compared with modules of the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import tpu as pltpu
from jax.extend import core
from jax.sharding import AbstractMesh

from amuse_jax.models import flops, hierarchy, mlp_tpu, platform

SHAPES = {  # shape of the tokens, hidden channels
    'one program': ((2, 9, 24), 48),
    'several programs, a chunk of the hidden layer left over': ((1, 1100, 16), 384),
    'an even number of chunks': ((3, 5, 8), 256),
}


def inputs(shape, hidden, dtype):
    random = np.random.default_rng(0)
    x, gradient = (jnp.asarray(random.normal(size=shape), dtype) for _ in range(2))
    width = shape[-1]

    def linear(rows, columns):
        kernel = random.normal(size=(rows, columns)) * rows**-0.5
        return kernel.astype(np.float32), random.normal(size=columns).astype(np.float32)

    norm = tuple(random.normal(size=width).astype(np.float32) for _ in range(2))
    return x, gradient, (linear(width, hidden), linear(hidden, width), norm)


def by_modules(x, weights, norm_first):
    """Return what `residual_mlp` computes, by the modules of a tower."""
    (inner, inner_bias), (outer, outer_bias), (scale, bias) = weights
    width, hidden = inner.shape
    mlp = hierarchy.Mlp(width, hidden, x.dtype, nnx.Rngs(0))
    norm = hierarchy.layer_norm(width, nnx.Rngs(0))
    for param, value in (
        (mlp.inner.kernel, inner), (mlp.inner.bias, inner_bias), (mlp.outer.kernel, outer),
        (mlp.outer.bias, outer_bias), (norm.scale, scale), (norm.bias, bias),
    ):  # fmt: skip
        param[...] = jnp.asarray(value)
    if norm_first:
        return x + mlp(norm(x).astype(x.dtype)).astype(x.dtype)
    return x + norm(mlp(x)).astype(x.dtype)


def by_kernels(x, weights, norm_first):
    return mlp_tpu.residual_mlp(x, *weights, norm_first=norm_first, epsilon=hierarchy.EPSILON)


def results(function, x, gradient, weights, norm_first, trained):
    """Return the output and the gradients of x and, if `trained`, of the weights."""

    def both(x, weights):
        if trained:
            output, pull = jax.vjp(lambda x, weights: function(x, weights, norm_first), x, weights)
        else:
            output, pull = jax.vjp(lambda x: function(x, weights, norm_first), x)
        return output, pull(gradient)

    with pltpu.force_tpu_interpret_mode():
        return jax.tree.leaves(jax.jit(both)(x, weights))


@pytest.mark.parametrize('trained', [False, True])
@pytest.mark.parametrize('norm_first', [False, True])
@pytest.mark.parametrize('case', SHAPES)
def test_the_kernels_compute_the_mlp_and_its_gradients(case, norm_first, trained):
    x, gradient, weights = inputs(*SHAPES[case], np.float32)
    given = x, gradient, weights, norm_first, trained
    expected = results(by_modules, *given)
    for found, wanted in zip(results(by_kernels, *given), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize('norm_first', [False, True])
def test_bfloat16_is_as_exact_as_the_modules(norm_first):
    x, gradient, weights = inputs((2, 40, 64), 256, jnp.bfloat16)
    exact = results(
        by_modules, x.astype(jnp.float32), gradient.astype(jnp.float32), weights, norm_first, False
    )
    errors = {}
    for function in (by_kernels, by_modules):
        found = results(function, x, gradient, weights, norm_first, False)
        assert all(each.dtype == jnp.bfloat16 for each in found)
        errors[function] = [
            float(np.sqrt(np.mean((each.astype(jnp.float32) - wanted) ** 2)))
            for each, wanted in zip(found, exact, strict=True)
        ]
    for kernel, plain in zip(errors[by_kernels], errors[by_modules], strict=True):
        assert kernel < 1.1 * plain


def kernel_names(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'pallas_call':
            yield equation.params['name']
        else:
            for inner in core.jaxprs_in_params(equation.params):
                yield from kernel_names(inner)


def test_a_gradient_of_frozen_weights_is_one_kernel_without_saved_results():
    x, gradient, weights = inputs((2, 16, 8), 64, np.float32)

    def pulled(x):
        layer = jax.checkpoint(lambda x: by_kernels(x, weights, False))
        return jax.vjp(layer, x)[1](gradient)

    assert list(kernel_names(jax.make_jaxpr(pulled)(x).jaxpr)) == ['mlp', 'mlp_gradient']


def test_flops_are_those_of_the_modules():
    x, gradient, weights = inputs((2, 16, 8), 64, np.float32)
    counts = []
    for function in (by_kernels, by_modules):

        def both(x, function=function):
            output, pull = jax.vjp(lambda x: function(x, weights, True), x)
            return output, pull(gradient)

        counts.append(flops.count_matmul_flops(jax.make_jaxpr(both)(x).jaxpr))
    assert counts[0] == counts[1] > 0


def test_the_kernels_take_unsharded_weights_that_fit_a_tpu():
    x = jnp.zeros((2, 16, 768), jnp.bfloat16)
    assert not mlp_tpu.fits(x, 3072)
    with platform.compiling_for('tpu'):
        assert mlp_tpu.fits(x, 3072)
        assert not mlp_tpu.fits(x, 2**15)
        for sizes, fits in (((4, 2, 1), True), ((4, 1, 2), False), ((1, 1, 1), True)):
            mesh = AbstractMesh(sizes, ('data', 'fsdp', 'tensor'))
            with platform.batch_sharded_over(mesh, ('data', 'fsdp')):
                assert mlp_tpu.fits(x, 3072) == fits
