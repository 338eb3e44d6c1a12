"""Swin-V2 (Liu et al. 2022): res-post-norm, cosine attention, continuous position bias.

tower = SwinV2(named('swinv2_large_window12_192'), rngs=nnx.Rngs(0))
pooled = tower(normalise(frames)).pooled
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import dense, hierarchy, remat, windows
from amuse_jax.models.window_map import WindowMap

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # for RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_LOGIT_SCALE = math.log(100.0)  # tau >= 0.01, section 3.2
INITIAL_LOGIT_SCALE = math.log(10.0)
BIAS_HIDDEN = 512  # hidden channels of the MLP that computes the position bias
BIAS_LIMIT = 16.0  # the position bias lies in (0, 16)


@dataclasses.dataclass(frozen=True)
class SwinV2Config:
    """Sizes of a tower.

    Attributes:
      image_size: side of the square image in pixels, or (height, width).
      patch: side of a patch in pixels.
      width: channels in stage 1; each later stage has twice as many as the one before.
      depths, heads: blocks and attention heads per stage.
      window: side of a window in tokens.
      pretrained_windows: side of the window that the position bias was trained with, per stage;
        0 = `window`.
      mlp_ratio: hidden channels of a block's MLP, as a multiple of its channels.
    """

    image_size: int | tuple[int, int]
    patch: int
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    pretrained_windows: tuple[int, ...] = (0, 0, 0, 0)
    mlp_ratio: float = 4.0

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    @property
    def trained_windows(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sides of the windows that the position bias was trained with, by axis and stage.

        Where `pretrained_windows` is 0 it is the window of that stage, which is no larger than the
        stage's map.
        """
        return tuple(
            tuple(
                pretrained or min(self.window, side // self.patch >> stage)
                for stage, pretrained in enumerate(self.pretrained_windows)
            )
            for side in self.image_sides
        )


# The published sizes: width, depths and heads.
SIZES = {
    'tiny': (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    'small': (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    'base': (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    'large': (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


def named(name: str) -> SwinV2Config:
    """Return the config of a published model by timm's name.

    Examples are 'swinv2_tiny_window8_256' and 'swinv2_large_window12to24_192to384', which was
    pretrained with windows of 12 tokens at 192 px and fine-tuned with windows of 24 at 384 px.

    Raises:
      ValueError: no published model has that name.
    """
    pattern = rf'swinv2_({"|".join(SIZES)})_window(?:(\d+)to)?(\d+)_(?:\d+to)?(\d+)'
    found = re.fullmatch(pattern, name)
    if not found:
        raise ValueError(
            f'{name!r} names no Swin-V2; expected swinv2_SIZE_windowN_PIXELS or '
            f'swinv2_SIZE_windowNtoN_PIXELStoPIXELS with SIZE one of {", ".join(SIZES)}'
        )
    size, before, window, pixels = found.groups()
    width, depths, heads = SIZES[size]
    # In pretraining the last stage's map was only half a window wide.
    pretrained = (int(before),) * 3 + (int(before) // 2,) if before else (0, 0, 0, 0)
    return SwinV2Config(int(pixels), 4, width, depths, heads, int(window), pretrained)


def normalise(frames: Array) -> Array:
    """Normalise RGB images by ImageNet's mean and deviation: (..., height, width, 3) -> float32.

    Args:
      frames: uint8.
    """
    scale = 1 / (255 * np.array(IMAGENET_STD, np.float32))
    offset = np.array(IMAGENET_MEAN, np.float32) / np.array(IMAGENET_STD, np.float32)
    return frames.astype(jnp.float32) * scale - offset


def log_offsets(window: tuple[int, int], pretrained: int) -> np.ndarray:
    """Return the log-spaced offsets between two tokens of a window (section 3.3, eq. 4).

    Args:
      window: height h and width w of the window, in tokens.
      pretrained: side of the window in pretraining, in tokens; 0 = the same window.
    Returns:
      ((2h-1) * (2w-1), 2) float32; the pretraining window's are in about [-1.06, 1.06].
    """
    axes = []
    for side in window:
        reach = max((pretrained or side) - 1, 1)
        offset = np.arange(-(side - 1), side, dtype=np.float32) / reach * 8
        axes.append(np.sign(offset) * np.log2(np.abs(offset) + 1) / np.log2(8))
    grid = np.stack(np.meshgrid(*axes, indexing='ij'), -1)
    return grid.reshape(-1, 2).astype(np.float32)


class CosineAttention(nnx.Module):
    """Window attention, softmax(cos(q, k) / tau + B) v (section 3.2).

    The projections to q and v have a bias, the projection to k has none.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        window_map: WindowMap,
        pretrained_window: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.heads, self.window_map, self.dtype = heads, window_map, dtype
        self.pretrained_window = pretrained_window
        self.qkv = dense.Linear(width, 3 * width, use_bias=False, dtype=dtype, rngs=rngs)
        self.query_bias = nnx.Param(jnp.zeros((width,)))
        self.value_bias = nnx.Param(jnp.zeros((width,)))
        self.logit_scale = nnx.Param(jnp.full((heads,), INITIAL_LOGIT_SCALE))
        self.bias_inner = dense.Linear(2, BIAS_HIDDEN, rngs=rngs)
        self.bias_outer = dense.Linear(BIAS_HIDDEN, heads, use_bias=False, rngs=rngs)
        self.out = dense.Linear(width, width, dtype=dtype, rngs=rngs)

    def position_bias(self) -> Array:
        """Return the continuous position bias (heads, m, m) float32, from the parameters alone."""
        offsets = log_offsets(self.window_map.window, self.pretrained_window)
        table = self.bias_outer(jax.nn.relu(self.bias_inner(offsets)))
        table = BIAS_LIMIT * jax.nn.sigmoid(table.T)
        return windows.relative_position_bias(table, self.window_map.window)

    def __call__(self, tokens: Array, bias: Array, shifted: bool) -> Array:
        """(b, h*w, d) -> (b, h*w, d)."""
        query_bias, value_bias = self.query_bias[...], self.value_bias[...]
        projection = (
            self.qkv.kernel[...],
            jnp.concatenate([query_bias, jnp.zeros_like(query_bias), value_bias]),
        )
        scale = jnp.exp(jnp.minimum(self.logit_scale[...], MAX_LOGIT_SCALE))
        window_map = self.window_map if shifted else self.window_map.unshifted
        x = windows.self_attention(tokens, *projection, bias, scale, window_map, cosine=True)
        return checkpoint_name(self.out(x), remat.OUT)


class SwinV2Block(nnx.Module):
    """Attention and MLP, each with a norm before the residual addition (section 3.2).

    A new block is the identity, because the scales of the norms start at zero as in the original.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        window_map: WindowMap,
        pretrained_window: int,
        mlp_ratio: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.attention = CosineAttention(width, heads, window_map, pretrained_window, dtype, rngs)
        zeros = nnx.initializers.zeros
        self.attention_norm = hierarchy.layer_norm(width, rngs, scale_init=zeros)
        self.mlp = hierarchy.Mlp(width, int(mlp_ratio * width), dtype, rngs)
        self.mlp_norm = hierarchy.layer_norm(width, rngs, scale_init=zeros)

    def position_bias(self) -> Array:
        """Return the position bias (heads, m, m) of the attention."""
        return self.attention.position_bias()

    def attend(self, tokens: Array, bias: Array, shifted: bool) -> Array:
        """Run the first half of the block, the attention: (b, h*w, d) -> (b, h*w, d)."""
        x = self.attention(tokens, bias, shifted)
        return tokens + self.attention_norm(x).astype(tokens.dtype)

    def transform(self, tokens: Array) -> Array:
        """Run the second half of the block, the MLP: (b, h*w, d) -> (b, h*w, d)."""
        return hierarchy.add_mlp(tokens, self.mlp, self.mlp_norm, norm_first=False)

    def __call__(self, tokens: Array, bias: Array, shifted: bool) -> Array:
        """(b, h*w, d) -> (b, h*w, d)."""
        return self.transform(self.attend(tokens, bias, shifted))


class PatchMerging(nnx.Module):
    """Merge four neighbours into one token of twice the channels; the norm comes last."""

    def __init__(self, size: tuple[int, int], width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.size, self.dtype = size, dtype
        self.reduction = dense.Linear(4 * width, 2 * width, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = hierarchy.layer_norm(2 * width, rngs)

    def __call__(self, tokens: Array) -> Array:
        """(b, h*w, d) -> (b, h*w/4, 2d)."""
        quads = hierarchy.gather_quads(tokens, self.size)
        return self.norm(self.reduction(quads)).astype(self.dtype)


class SwinV2(hierarchy.Tower):
    """The Swin-V2 tower: (b, height, width, 3) normalised images -> TowerOutput."""

    def __init__(
        self,
        config: SwinV2Config,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        remat_policy: str = 'everything',
    ):
        self.config, self.dtype = config, dtype
        self.patches = hierarchy.PatchEmbedding(config.patch, 3, config.width, dtype, rngs)

        def block(width, heads, window_map, stage):
            window, ratio = config.pretrained_windows[stage], config.mlp_ratio
            return lambda rngs: SwinV2Block(width, heads, window_map, window, ratio, dtype, rngs)

        self.build(config, config.image_sides, block, PatchMerging, remat_policy, rngs)

    def embed(self, x: Array) -> Array:
        """Return the tokens that enter stage 1: (b, height, width, 3) -> (b, n1, d1).

        Raises:
          ValueError: the size of the images differs from the config's.
        """
        expected = (*self.config.image_sides, 3)
        if x.shape[1:] != expected:
            raise ValueError(f'images are {x.shape[1:]}, the tower was built for {expected}')
        return self.patches(x)


class SwinV2Classifier(nnx.Module):
    """The tower with its classification head: (b, height, width, 3) -> (b, classes) logits."""

    def __init__(
        self, config: SwinV2Config, classes: int, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32
    ):
        self.tower = SwinV2(config, rngs=rngs, dtype=dtype)
        self.head = dense.Linear(self.tower.width_out, classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Return the class logits (b, classes) in float32."""
        return self.head(self.tower(x).pooled).astype(jnp.float32)
