import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh

from amuse_jax.models import dense, flops, platform
from amuse_jax.system import mkl

ROWS, DEPTH, COLUMNS = 600, 256, 512  # enough for MKL


def arrays(dtype=jnp.float32):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, ROWS // 2, DEPTH)), dtype)
    return x, jnp.asarray(random.normal(size=(DEPTH, COLUMNS)), dtype)


def foreign_calls(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count('ffi_call')


def test_products_and_gradients_are_those_of_jax():
    x, kernel = arrays()

    def loss(multiply, x, kernel):
        return jnp.sum(jnp.sin(multiply(x, kernel)))

    ours = jax.jit(jax.value_and_grad(lambda *a: loss(dense.matmul, *a), (0, 1)))(x, kernel)
    theirs = jax.jit(jax.value_and_grad(lambda *a: loss(jnp.matmul, *a), (0, 1)))(x, kernel)
    for found, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3)


def test_a_dense_layer_is_that_of_flax():
    x, _ = arrays()
    ours = dense.Linear(DEPTH, COLUMNS, rngs=nnx.Rngs(0))
    theirs = nnx.Linear(DEPTH, COLUMNS, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(ours.kernel[...], theirs.kernel[...])
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not mkl.is_available(), reason='needs an Intel processor and PyTorch')
def test_mkl_computes_large_float32_products_of_one_device():
    assert foreign_calls(dense.matmul, *arrays()) == 1
    assert foreign_calls(jax.grad(lambda *a: dense.matmul(*a).sum(), (0, 1)), *arrays()) == 3
    assert foreign_calls(dense.matmul, *arrays(jnp.bfloat16)) == 0
    assert foreign_calls(dense.matmul, jnp.ones((3, DEPTH)), jnp.ones((DEPTH, COLUMNS))) == 0
    with platform.compiling_for('tpu'):
        assert foreign_calls(lambda *a: dense.matmul(*a), *arrays()) == 0
    for devices, calls in ((1, 1), (2, 0)):
        with platform.batch_sharded_over(AbstractMesh((devices,), ('data',)), ('data',)):
            assert foreign_calls(lambda *a: dense.matmul(*a), *arrays()) == calls


def test_flops_are_counted_wherever_they_are_computed():
    x, kernel = arrays()

    def loss(x, kernel):
        return jnp.sum(dense.matmul(x, kernel) ** 2)

    def products(function, argnums):
        jaxpr = jax.make_jaxpr(jax.grad(function, argnums))(x, kernel).jaxpr
        return flops.count_matmul_flops(jaxpr) / (2 * ROWS * DEPTH * COLUMNS)

    assert products(loss, 0) == 2  # of a frozen kernel
    assert products(jax.checkpoint(loss), 0) == 3
    assert products(loss, (0, 1)) == 3


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_a_bias_on_tpus_is_a_float32_sum(dtype):
    x, kernel = arrays(dtype)
    bias = kernel[0, :DEPTH]
    with platform.compiling_for('tpu'), jax.default_matmul_precision('highest'):
        found, pull_back = jax.vjp(dense.add_bias, x, bias)
        d_x, d_bias = pull_back(x)
    np.testing.assert_array_equal(found, x + bias)
    np.testing.assert_array_equal(d_x, x)
    assert d_bias.dtype == dtype
    expected = x.astype(jnp.float32).sum((0, 1))
    atol = 2e-6 * ROWS if dtype == jnp.float32 else 2**-8 * float(jnp.abs(expected).max())
    np.testing.assert_allclose(d_bias.astype(jnp.float32), expected, atol=atol)


@pytest.mark.parametrize('target, calls', [('tpu', 1), ('cpu', 0), ('gpu', 0)])
def test_other_platforms_take_the_gradient_of_jax(target, calls):
    with platform.compiling_for(target):
        text = str(jax.make_jaxpr(lambda *a: dense.add_bias(*a))(jnp.ones((2, 3)), jnp.ones(3)))
    assert text.count('custom_vjp') == calls
