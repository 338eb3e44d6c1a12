import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amuse_jax.models import windows
from amuse_jax.models.windows import WindowMap

# Height, width, window: even and odd, padded, oblong, one window, one row, window of one token.
MAPS = [(8, 8, 4), (7, 10, 3), (6, 4, 4), (3, 3, 5), (1, 9, 2), (4, 5, 1)]


@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('height, width, window', MAPS)
def test_joining_inverts_splitting(height, width, window, shifted):
    window_map = WindowMap.of((height, width), window)
    tokens = np.arange(2 * height * width * 6, dtype=np.float32).reshape(2, height * width, 6)
    parts = window_map.split(window_map.roll(window_map.pad(tokens), shifted), heads=3)
    assert parts.shape == (2 * window_map.windows, 3, window_map.tokens, 2)
    np.testing.assert_array_equal(
        window_map.crop(window_map.roll(window_map.join(parts), shifted, -1)), tokens
    )


@pytest.mark.parametrize('height, width, window', MAPS)
def test_tokens_attend_only_within_a_window_of_the_unrolled_map(height, width, window):
    """The mask is compared with shifted windows on the map before rolling, cut off at its edges."""
    padded = WindowMap.of(WindowMap.of((height, width), window).padded, window)
    window_map = dataclasses.replace(padded, shift=WindowMap.of((height, width), window).shift)
    places = np.stack(np.meshgrid(*map(np.arange, padded.size), indexing='ij'), -1)
    places = places.reshape(1, -1, 2).astype(np.float32)
    places = window_map.split(window_map.roll(window_map.pad(places), True), 1)[:, 0]
    places = np.asarray(places).astype(int)
    window_of = (places - window_map.shift) // window_map.window  # -1: cut off at the edge
    same_window = (window_of[:, :, None] == window_of[:, None, :]).all(-1)
    np.testing.assert_array_equal(
        windows.shift_mask(WindowMap.of((height, width), window)), same_window
    )


def test_a_known_shift_mask():
    """Four tokens in windows of two: the second window holds the last token and the first."""
    mask = windows.shift_mask(WindowMap((4, 1), (2, 1), (1, 0)))
    np.testing.assert_array_equal(mask, [np.ones((2, 2)), np.eye(2)])


@pytest.mark.parametrize(
    'size, window, expected',
    [
        ((48, 48), 12, ((12, 12), (6, 6))),
        ((12, 12), 12, ((12, 12), (0, 0))),
        ((6, 6), 12, ((6, 6), (0, 0))),
        ((6, 24), 12, ((6, 12), (0, 6))),
    ],
)
def test_windows_shrink_to_the_map(size, window, expected):
    window_map = WindowMap.of(size, window)
    assert (window_map.window, window_map.shift) == expected


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
    for y, x, v, u in np.ndindex(high, broad, high, broad):
        expected = table[:, y - v + high - 1, x - u + broad - 1]
        np.testing.assert_allclose(pairs[:, y, x, v, u], expected, rtol=1e-6)


def test_gradients_of_a_bias_that_all_windows_share():
    rng = np.random.default_rng(0)
    scores, bias, weights = rng.normal(size=(5, 2, 3)), rng.normal(size=(2, 3)), np.arange(5.0)

    def loss(add, scores, bias):
        return jnp.sum(jnp.sin(add(scores, bias)) * weights[:, None, None])

    found = jax.grad(loss, argnums=(1, 2))(windows.add_bias, scores, bias)
    expected = jax.grad(loss, argnums=(1, 2))(jnp.add, scores, bias)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
