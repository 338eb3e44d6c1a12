"""Windows of a map of tokens: padding, shift, masks, and attention inside a window.

Swin (Liu et al. 2021) and Swin-V2 (Liu et al. 2022) share this code. Tokens have the layout
(batch, height * width, channels); only attention cuts them into windows.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import platform, remat
from amuse_jax.models.attention import gpu, multihead, tpu


@dataclasses.dataclass(frozen=True)
class WindowMap:
    """How a map of tokens is cut into windows.

    If a side of the map is not longer than the window, the window shrinks to that side and is not
    shifted along it, as in timm. A longer side is padded with zeros to a multiple of the window.

    Attributes:
      size: height and width of the map, in tokens.
      window: height and width of a window, in tokens.
      shift: number of tokens by which shifted blocks move the windows, down and right.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int], window: int) -> 'WindowMap':
        """Return the windows of a map; `window` is the side of a square window, in tokens."""
        windows = tuple(min(side, window) for side in size)
        shift = tuple(window // 2 if side > window else 0 for side in size)
        return cls(tuple(size), windows, shift)

    @property
    def shifts(self) -> bool:
        """Whether every second block shifts its windows, that is, whether there are several."""
        return any(self.shift)

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

    def roll(self, x: Array, shifted: bool | Array, sign: int = 1) -> Array:
        """Roll a padded map so that the shifted windows become windows: (b, h*w, d).

        Args:
          x: the padded map.
          shifted: whether the windows are shifted; may be traced.
          sign: 1, or -1 to roll the map back.
        """
        if shifted is False or not self.shifts:
            return x
        steps = tuple(-sign * step * shifted for step in self.shift)
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


def relative_position_bias(table: Array, window: tuple[int, int]) -> Array:
    """Expand a table of one value per offset to one value per pair of tokens in a window.

    An offset is the query's position minus the key's. The table is sorted by row offset, then by
    column offset, the most negative first, as in the originals. The function only copies blocks: a
    gather of as many elements, and the scatter in its gradient, would cost more than the attention
    itself.

    Args:
      table: (heads, (2h-1) * (2w-1)).
      window: height h and width w of the window, in tokens.
    Returns:
      (heads, h*w, h*w), by query and key.
    """
    high, broad = window
    x = _toeplitz(table.reshape(-1, 2 * high - 1, 2 * broad - 1))  # (heads, 2h-1, w, w)
    x = _toeplitz(jnp.moveaxis(x, 1, -1))  # (heads, w, w, h, h)
    return x.transpose(0, 3, 1, 4, 2).reshape(-1, high * broad, high * broad)


def _toeplitz(x: Array) -> Array:
    """(..., 2n-1) -> (..., n, n) with [q, k] = x[q - k + n - 1].

    Repeat x with period 2n and cut the result into rows of length 2n - 1: each row then begins one
    element earlier in x than the row before.
    """
    *lead, length = x.shape
    n = (length + 1) // 2
    period = jnp.pad(jnp.flip(x, -1), [(0, 0)] * len(lead) + [(0, 1)])
    rows = jnp.broadcast_to(period[..., None, :], (*lead, n, 2 * n)).reshape(*lead, -1)
    return rows[..., : n * length].reshape(*lead, n, length)[..., n - 1 :]


@jax.custom_vjp
def add_bias(scores: Array, bias: Array) -> Array:
    """Return scores (b, ...) + bias (...).

    The gradient of the bias is computed as a matrix product with ones. As a sum over the first axis
    it takes XLA ten times as long on a CPU.
    """
    return scores + bias


def _add_bias_backward(_, gradient: Array) -> tuple[Array, Array]:
    ones = jnp.ones(len(gradient), gradient.dtype)
    return gradient, jnp.tensordot(ones, gradient, 1)


add_bias.defvjp(lambda scores, bias: (scores + bias, None), _add_bias_backward)


def self_attention(
    tokens: Array,
    kernel: Array,
    kernel_bias: Array,
    bias: Array,
    scale: Array,
    window_map: WindowMap,
    shifted: bool | Array,
    cosine: bool = False,
) -> Array:
    """Let the tokens of each window of a map attend to each other; see `attention`.

    Args:
      tokens: (b, h*w, d) of a map that is neither padded nor shifted.
      kernel, kernel_bias: (d, 3d) and (3d,), the projection to queries, keys and values.
      bias, scale, window_map, shifted, cosine: see `attention`.
    Returns:
      (b, h*w, d) in the dtype of tokens.
    """
    tokens = window_map.pad(tokens)
    if platform.current() == 'gpu' and window_map.tokens <= gpu.MAX_TOKENS:

        def attend(qkv, bias, scale, shifted):
            maps = window_map.padded, window_map.window, window_map.shift
            return gpu.attend(qkv, bias, scale, shifted, *maps, cosine)

        qkv = project(tokens, kernel, kernel_bias)
        shifted = jnp.asarray(shifted)
        return window_map.crop(platform.on_each_device(attend, 1, 3)(qkv, bias, scale, shifted))
    tokens = window_map.roll(tokens, shifted)
    if platform.current() == 'tpu':
        # Its kernel takes three arrays. Three products compute them, so that no result is split.
        parts = zip(jnp.split(kernel, 3, axis=1), jnp.split(kernel_bias, 3))
        qkv = [project(tokens, *part) for part in parts]
    else:
        qkv = jnp.split(project(tokens, kernel, kernel_bias), 3, axis=-1)
    x = attention(*qkv, bias, scale, window_map, shifted, cosine)
    return window_map.crop(window_map.roll(x, shifted, -1))


def project(tokens: Array, kernel: Array, bias: Array) -> Array:
    """Return what a layer keeps for the gradient of its attention: (..., d) -> (..., d')."""
    x = tokens @ kernel.astype(tokens.dtype) + bias.astype(tokens.dtype)
    return checkpoint_name(x, remat.QKV)


def attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array,
    scale: Array,
    window_map: WindowMap,
    shifted: bool | Array,
    cosine: bool = False,
) -> Array:
    """Return softmax(scale * query key^T + bias) value inside each window.

    The softmax runs in float32. Differs from the originals for tokens of a shifted window that must
    not attend to each other: they add -100 (Hugging Face's Swin-V2: -200) to the scores, here the
    weight is zero.

    Args:
      query, key, value: (b, padded h*w, heads * c) of a padded and shifted map.
      bias: (heads, m, m) float32, relative position bias of the m tokens of a window.
      scale: (heads,) float32.
      window_map: how the map is cut into windows.
      shifted: whether the windows are shifted; may be traced.
      cosine: whether to divide queries and keys by their lengths first.
    Returns:
      (b, padded h*w, heads * c) in the dtype of value.
    """
    mask = None
    if window_map.shifts and shifted is not False:
        mask = jnp.asarray(shift_mask(window_map))
        if shifted is not True:
            mask |= ~shifted
    attend = _attend_by_kernel if platform.current() == 'tpu' else _attend
    return attend(query, key, value, bias, scale, window_map, mask, cosine)


def _attend(query, key, value, bias, scale, window_map, mask, cosine):
    dtype, heads = value.dtype, len(bias)
    query, key, value = (window_map.split(x, heads) for x in (query, key, value))
    if cosine:
        query, key = unit(query), unit(key).astype(dtype)
    query = (query * scale[:, None, None]).astype(dtype)
    scores = add_bias(multihead.scores(query, key), bias)
    if mask is not None:
        windows = scores.reshape(-1, window_map.windows, *scores.shape[1:])
        windows = jnp.where(mask[:, None], windows, jnp.finfo(jnp.float32).min)
        scores = windows.reshape(scores.shape)
    weights = jax.nn.softmax(scores, axis=-1).astype(dtype)
    return window_map.join(jnp.einsum('bhqk,bhkd->bhqd', weights, value))


def _attend_by_kernel(query, key, value, bias, scale, window_map, mask, cosine):
    shape = len(query), window_map.windows, window_map.tokens, query.shape[-1]
    query, key, value = (window_map.split(x, 1).reshape(shape) for x in (query, key, value))
    bias = bias[None]
    if mask is not None:
        bias = jnp.where(mask[:, None], bias, jnp.finfo(jnp.float32).min)

    def kernel(query, key, value, scale, bias):
        return tpu.attend(query, key, value, scale, bias, cosine=cosine)

    x = platform.on_each_device(kernel, 3, 2)(query, key, value, scale, bias)
    return window_map.join(x.reshape(-1, 1, *shape[2:]))


def unit(x: Array) -> Array:
    """Divide x by its length along the last axis, in float32. Zeros have finite gradients."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), gpu.SMALLEST))
