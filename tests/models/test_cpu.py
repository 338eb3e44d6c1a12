import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amuse_jax.models import cpu, platform
from amuse_jax.models.gelu import gelu


def rows_times_two(x):
    return 2 * x.reshape(len(x), -1) + jnp.arange(x[0].size)


@pytest.mark.parametrize(
    'rows, chunk_rows', [(6, 6), (6, 4), (6, 3), (6, 1), (7, 3), (1, 1), (6, 0)]
)
def test_chunks_change_nothing(rows, chunk_rows):
    x = np.random.default_rng(0).normal(size=(rows, 2, 3)).astype(np.float32)
    row_bytes = cpu.CHUNK_BYTES // chunk_rows if chunk_rows else 2 * cpu.CHUNK_BYTES
    whole, whole_gradient = jax.value_and_grad(lambda x: jnp.sin(rows_times_two(x)).sum())(x)
    chunked = lambda x: jnp.sin(cpu.in_chunks(rows_times_two, x, row_bytes)).sum()  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(chunked))(x)
    np.testing.assert_allclose(value, whole, rtol=1e-5)
    np.testing.assert_allclose(gradient, whole_gradient, rtol=1e-5)
    np.testing.assert_array_equal(cpu.in_chunks(rows_times_two, x, row_bytes), rows_times_two(x))


@pytest.mark.parametrize(
    'rows, width, expected',
    [(6, 5, 3), (7, 5, 1), (4, 5, 2), (3, 5, 3), (12, cpu.WIDE, 3), (12, cpu.WIDE + 1, 6)],
)
def test_a_chunk_has_the_most_rows_that_fit_and_divide_the_batch(rows, width, expected):
    sizes = []

    def record(x):
        sizes.append(len(x))
        return x

    x = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    with platform.compiling_for('cpu'):
        jax.eval_shape(lambda x: cpu.in_chunks(record, x, cpu.CHUNK_BYTES // 3), x)
    assert min(sizes) == expected


def test_a_sharded_batch_is_not_cut_into_chunks():
    x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    for count, is_sharded in ((1, False), (2, True)):
        mesh = jax.sharding.AbstractMesh((count,), ('data',))
        with platform.compiling_for('cpu'), platform.batch_sharded_over(mesh, ('data',)):
            program = jax.make_jaxpr(lambda x: cpu.in_chunks(gelu, x, cpu.CHUNK_BYTES // 2))(x)
        assert ('scan' not in str(program)) == is_sharded


def test_other_platforms_have_no_workarounds():
    def run(x):
        return cpu.in_chunks(gelu, x, cpu.CHUNK_BYTES // 2)

    x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    for backend in ('cpu', 'gpu', 'tpu'):
        with platform.compiling_for(backend):
            program = str(jax.make_jaxpr(lambda x: run(x))(x))
        for special in ('scan', 'optimization_barrier'):
            assert (special in program) == (backend == 'cpu'), (backend, special)
