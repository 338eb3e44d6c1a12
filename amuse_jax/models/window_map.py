"""How a map of tokens is cut into windows: padding, shift and mask.

Tokens have the layout (batch, height * width, channels).
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclasses.dataclass(frozen=True)
class WindowMap:
    """How a map of tokens is cut into windows.

    If a side of the map is not longer than the window, the window shrinks to that side and is not
    shifted along it, as in timm. A longer side is padded with zeros to a multiple of the window.

    Attributes:
      size: height and width of the map, in tokens.
      window: height and width of a window, in tokens.
      shift: number of tokens by which the windows are moved, down and right.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int], window: int) -> 'WindowMap':
        """Return the shifted windows of a map; `window` is the side of a square window, in tokens.

        A map with a single window has no shift.
        """
        windows = tuple(min(side, window) for side in size)
        shift = tuple(window // 2 if side > window else 0 for side in size)
        return cls(tuple(size), windows, shift)

    @property
    def shifts(self) -> bool:
        """Whether the windows are shifted."""
        return any(self.shift)

    @property
    def unshifted(self) -> 'WindowMap':
        """The same map without the shift."""
        return dataclasses.replace(self, shift=(0, 0))

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the padded map, in tokens."""
        return tuple(-(-side // part) * part for side, part in zip(self.size, self.window))

    @property
    def tokens(self) -> int:
        """Number of tokens in a window."""
        return self.window[0] * self.window[1]

    @property
    def windows(self) -> int:
        """Number of windows in the map."""
        return self.padded[0] * self.padded[1] // self.tokens

    def pad(self, x: Array) -> Array:
        """Pad a map with zeros: (b, h*w, d) -> (b, padded h*w, d)."""
        if self.padded == self.size:
            return x
        batch, _, width = x.shape
        extra = [(0, whole - side) for whole, side in zip(self.padded, self.size)]
        x = jnp.pad(x.reshape(batch, *self.size, width), ((0, 0), *extra, (0, 0)))
        return x.reshape(batch, -1, width)

    def crop(self, x: Array) -> Array:
        """Invert `pad`: (b, padded h*w, d) -> (b, h*w, d)."""
        if self.padded == self.size:
            return x
        batch, _, width = x.shape
        height, breadth = self.size
        x = x.reshape(batch, *self.padded, width)[:, :height, :breadth]
        return x.reshape(batch, -1, width)

    def roll(self, x: Array, sign: int = 1) -> Array:
        """Roll a padded map so that its shifted windows become windows: (b, h*w, d).

        Args:
          x: the padded map.
          sign: 1, or -1 to roll the map back.
        """
        if not self.shifts:
            return x
        steps = tuple(-sign * step for step in self.shift)
        return jnp.roll(x.reshape(len(x), *self.padded, -1), steps, (1, 2)).reshape(x.shape)

    def split(self, x: Array, heads: int) -> Array:
        """Cut a padded map into windows and heads.

        (b, padded h*w, heads*d) -> (b*windows, heads, window tokens, d)
        """
        batch, _, width = x.shape
        (rows, columns), (high, broad) = self._counts(), self.window
        x = x.reshape(batch, rows, high, columns, broad, heads, width // heads)
        return x.transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, self.tokens, width // heads)

    def join(self, x: Array) -> Array:
        """Invert `split`: (b*windows, heads, window tokens, d) -> (b, padded h*w, heads*d)."""
        _, heads, _, depth = x.shape
        (rows, columns), (high, broad) = self._counts(), self.window
        x = x.reshape(-1, rows, columns, heads, high, broad, depth).transpose(0, 1, 4, 2, 5, 3, 6)
        return x.reshape(-1, self.padded[0] * self.padded[1], heads * depth)

    def _counts(self) -> tuple[int, int]:
        return tuple(whole // part for whole, part in zip(self.padded, self.window))


@functools.cache
def shift_mask(window_map: WindowMap) -> np.ndarray:
    """Return the attention mask of the shifted windows.

    Rolling a map brings tokens from opposite edges into one window. They must not attend to each
    other.

    Returns:
      (windows, m, m) bool for the m tokens of each window, by query and key, True = may attend.
    """
    regions = []
    for whole, part, step in zip(window_map.padded, window_map.window, window_map.shift):
        place = np.arange(whole)
        regions.append((place >= whole - part).astype(int) + (place >= whole - step))
    region = regions[0][:, None] * 3 + regions[1]  # (height, width) of the rolled map
    (rows, columns), (high, broad) = window_map._counts(), window_map.window
    region = region.reshape(rows, high, columns, broad).transpose(0, 2, 1, 3)
    region = region.reshape(window_map.windows, window_map.tokens)
    return region[:, :, None] == region[:, None, :]
