import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amuse_jax.models import windows


def test_a_table_of_offsets_is_read_row_by_row():
    (pairs,) = np.asarray(windows.relative_position_bias(np.arange(15.0)[None], (2, 3)))
    assert pairs[0, 0] == pairs[4, 4] == 1 * 5 + 2  # no offset
    assert pairs[5, 0] == 2 * 5 + 4  # one down, two right
    assert pairs[0, 5] == 0


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_every_pair_gets_the_value_of_its_offset(high, broad, heads):
    table = np.random.default_rng(0).normal(size=(heads, 2 * high - 1, 2 * broad - 1))
    pairs = np.asarray(windows.relative_position_bias(table.reshape(heads, -1), (high, broad)))
    pairs = pairs.reshape(heads, high, broad, high, broad)
    y, x, v, u = np.indices((high, broad, high, broad))
    expected = table[:, y - v + high - 1, x - u + broad - 1]
    np.testing.assert_allclose(pairs, expected, rtol=1e-6)


def test_gradients_of_a_bias_that_all_windows_share():
    rng = np.random.default_rng(0)
    scores, bias, weights = rng.normal(size=(5, 2, 3)), rng.normal(size=(2, 3)), np.arange(5.0)

    def loss(add, scores, bias):
        return jnp.sum(jnp.sin(add(scores, bias)) * weights[:, None, None])

    found = jax.grad(loss, argnums=(1, 2))(windows.add_bias, scores, bias)
    expected = jax.grad(loss, argnums=(1, 2))(jnp.add, scores, bias)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
