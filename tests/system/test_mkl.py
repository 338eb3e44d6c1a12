import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from amuse_jax.system import mkl

needs_mkl = pytest.mark.skipif(
    not mkl.is_available(), reason='needs an Intel processor and PyTorch for x86-64'
)


@needs_mkl
@pytest.mark.parametrize('transposed', mkl.TRANSPOSED.values(), ids=mkl.TRANSPOSED)
@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    sizes=st.tuples(*[st.integers(1, 90)] * 3), seed=st.integers(0, 2**32 - 1), jit=st.booleans()
)
def test_products_are_numpys(transposed, sizes, seed, jit):
    rows, depth, columns = sizes
    random = np.random.default_rng(seed)
    left = random.normal(size=(rows, depth)).astype(np.float32)
    right = random.normal(size=(depth, columns)).astype(np.float32)
    expected = left.astype(np.float64) @ right
    left, right = (x.T.copy() if t else x for x, t in zip((left, right), transposed))

    def multiply(left, right):
        return mkl.matmul(left, right, *transposed)

    found = (jax.jit(multiply) if jit else multiply)(left, right)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@needs_mkl
def test_operands_with_other_layouts():
    random = np.random.default_rng(0)
    left, right = (random.normal(size=(3, 50, 40)).astype(np.float32) for _ in range(2))

    @jax.jit
    def multiply(left, right):  # XLA would like to read both transposed
        return mkl.matmul(left[1], right[2].T), mkl.matmul(left[0].T, right[1])

    found = multiply(left, right)
    np.testing.assert_allclose(found[0], left[1] @ right[2].T, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[1], left[0].T @ right[1], rtol=1e-5, atol=1e-4)


STORED = """
import sys, jax, jax.numpy as jnp
from amuse_jax.system import mkl
assert mkl.is_available()
jax.config.update('jax_compilation_cache_dir', sys.argv[1])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
print(float(jax.jit(mkl.matmul)(jnp.ones((4, 5)), jnp.ones((5, 6))).sum()))
"""


@needs_mkl
def test_stored_programs_find_mkl_again(tmp_path):
    for _ in range(2):
        command = [sys.executable, '-c', STORED, tmp_path]
        assert float(subprocess.check_output(command, text=True)) == 4 * 5 * 6
    assert any(tmp_path.iterdir())


def test_without_pytorch_or_on_other_processors_xla_multiplies(monkeypatch):
    monkeypatch.setattr(mkl, '_library', lambda: None)
    assert not mkl.is_available.__wrapped__()
    monkeypatch.undo()
    monkeypatch.setattr(mkl, '_is_intel', lambda: False)
    assert not mkl.is_available.__wrapped__()


def test_numba_that_has_no_folder_for_its_cache_leaves_the_products_to_xla(monkeypatch):
    def fail(sgemm):
        raise RuntimeError("cannot cache function 'call': no locator available")

    monkeypatch.setattr(mkl, '_is_intel', lambda: True)
    monkeypatch.setattr(mkl, '_register', fail)
    assert not mkl.is_available.__wrapped__()


def test_another_library_is_refused(monkeypatch, tmp_path):
    (tmp_path / 'libtorch_cpu.so').write_bytes(b'no library')
    monkeypatch.setattr(mkl, '_library', lambda: tmp_path / 'libtorch_cpu.so')
    monkeypatch.setattr(mkl, '_is_intel', lambda: True)
    assert not mkl.is_available.__wrapped__()
