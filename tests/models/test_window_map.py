import dataclasses

import numpy as np
import pytest

from amuse_jax.models.window_map import WindowMap, shift_mask

# Height, width, window: even and odd, padded, oblong, one window, one row, window of one token.
MAPS = [(8, 8, 4), (7, 10, 3), (6, 4, 4), (3, 3, 5), (1, 9, 2), (4, 5, 1)]


@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('height, width, window', MAPS)
def test_joining_inverts_splitting(height, width, window, shifted):
    window_map = WindowMap.of((height, width), window)
    window_map = window_map if shifted else window_map.unshifted
    tokens = np.arange(2 * height * width * 6, dtype=np.float32).reshape(2, height * width, 6)
    parts = window_map.split(window_map.roll(window_map.pad(tokens)), heads=3)
    assert parts.shape == (2 * window_map.windows, 3, window_map.tokens, 2)
    joined = window_map.crop(window_map.roll(window_map.join(parts), -1))
    np.testing.assert_array_equal(joined, tokens)


@pytest.mark.parametrize('height, width, window', MAPS)
def test_tokens_attend_only_within_a_window_of_the_unrolled_map(height, width, window):
    """The mask is compared with shifted windows on the map before rolling, cut off at its edges."""
    padded = WindowMap.of(WindowMap.of((height, width), window).padded, window)
    window_map = dataclasses.replace(padded, shift=WindowMap.of((height, width), window).shift)
    places = np.stack(np.meshgrid(*map(np.arange, padded.size), indexing='ij'), -1)
    places = places.reshape(1, -1, 2).astype(np.float32)
    places = window_map.split(window_map.roll(window_map.pad(places)), 1)[:, 0]
    places = np.asarray(places).astype(int)
    window_of = (places - window_map.shift) // window_map.window  # -1: cut off at the edge
    same_window = (window_of[:, :, None] == window_of[:, None, :]).all(-1)
    np.testing.assert_array_equal(shift_mask(WindowMap.of((height, width), window)), same_window)


def test_a_known_shift_mask():
    """Four tokens in windows of two: the second window holds the last token and the first."""
    mask = shift_mask(WindowMap((4, 1), (2, 1), (1, 0)))
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
