"""HTS-AT (Chen et al. 2022): a Swin tower over a log-mel spectrogram folded into a square image.

tower = HTSAT(HTSATConfig(256, 4, 96, (2, 2, 6, 2), (4, 8, 16, 32), 8), rngs=nnx.Rngs(0))
pooled = tower(log_mel).pooled
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import dense, hierarchy, remat, windows
from amuse_jax.models.data_norm import DataNorm
from amuse_jax.models.window_map import WindowMap

CUBIC = -0.75  # PyTorch's coefficient of the bicubic kernel


@dataclasses.dataclass(frozen=True)
class HTSATConfig:
    """Sizes of a tower.

    Attributes:
      image_size: side of the square that the spectrogram is folded into, a multiple of `mels`.
      patch: side of a patch in pixels.
      width: channels in stage 1; each later stage has twice as many as the one before.
      depths, heads: blocks and attention heads per stage.
      window: side of a window in tokens.
      mels: number of mel bands of the input.
      mlp_ratio: hidden channels of a block's MLP, as a multiple of its channels.
    """

    image_size: int
    patch: int
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    mels: int = 64
    mlp_ratio: float = 4.0

    @property
    def folds(self) -> int:
        """Number of pieces of time that are stacked vertically in the image."""
        return self.image_size // self.mels

    @property
    def frames(self) -> int:
        """Number of frames that the input is resized to."""
        return self.image_size * self.folds


@functools.cache
def bicubic_matrix(source: int, target: int) -> np.ndarray:
    """Return the matrix of a bicubic resize with aligned corners along one axis.

    It equals torch.nn.functional.interpolate. Positions are computed in float32 as in PyTorch,
    because on a long axis their rounding changes the fourth digit of the weights.

    Returns:
      (target, source) float32; rows sum to one.
    """
    step = np.float32(source - 1) / np.float32(max(target - 1, 1))
    place = step * np.arange(target, dtype=np.float32)
    left = np.floor(place).astype(int)
    matrix = np.zeros((target, source), np.float32)
    for tap in range(-1, 3):
        x = np.abs(place - (left + tap).astype(np.float32))
        near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
        far = ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC
        weight = np.where(x <= 1, near, far)
        np.add.at(matrix, (np.arange(target), np.clip(left + tap, 0, source - 1)), weight)
    return matrix


def fold(log_mel: Array, config: HTSATConfig) -> Array:
    """Resize the time axis and fold it into a square image.

    The first piece of time is on top, with its low bands first; the next piece is below it.

    Args:
      log_mel: (b, frames, mels), any number of frames.
      config: sizes of the tower.
    Returns:
      (b, image_size, image_size); rows are (piece of time, band), columns are frames of a piece.
    """
    batch, frames, mels = log_mel.shape
    if frames == config.frames:
        x = log_mel.transpose(0, 2, 1)
    else:
        matrix = bicubic_matrix(frames, config.frames)
        x = jnp.einsum('tf,bfm->bmt', matrix, log_mel)
    x = x.reshape(batch, mels, config.folds, config.image_size).transpose(0, 2, 1, 3)
    return x.reshape(batch, config.image_size, config.image_size)


class BiasedAttention(nnx.Module):
    """Window attention, softmax(q k^T / sqrt(d) + B) v (Liu et al. 2021, eq. 4).

    B comes from a table with one value per offset and head.
    """

    def __init__(
        self, width: int, heads: int, window_map: WindowMap, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.heads, self.window_map = heads, window_map
        high, broad = window_map.window
        self.qkv = dense.Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        offsets = (2 * high - 1) * (2 * broad - 1)
        draw = nnx.initializers.truncated_normal(0.02)
        self.bias_table = nnx.Param(draw(rngs.params(), (offsets, heads)))
        self.out = dense.Linear(width, width, dtype=dtype, rngs=rngs)

    def position_bias(self) -> Array:
        """Return the relative position bias (heads, m, m) float32, from the parameters alone."""
        return windows.relative_position_bias(self.bias_table[...].T, self.window_map.window)

    def __call__(self, tokens: Array, bias: Array, shifted: bool) -> Array:
        """(b, h*w, d) -> (b, h*w, d)."""
        scale = jnp.full(self.heads, (tokens.shape[-1] // self.heads) ** -0.5)
        projection = self.qkv.kernel[...], self.qkv.bias[...]
        window_map = self.window_map if shifted else self.window_map.unshifted
        x = windows.self_attention(tokens, *projection, bias, scale, window_map)
        return checkpoint_name(self.out(x), remat.OUT)


class HTSATBlock(nnx.Module):
    """Attention and MLP, each with a norm before it, as in Swin."""

    def __init__(
        self,
        width: int,
        heads: int,
        window_map: WindowMap,
        mlp_ratio: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.attention_norm = hierarchy.layer_norm(width, rngs)
        self.attention = BiasedAttention(width, heads, window_map, dtype, rngs)
        self.mlp_norm = hierarchy.layer_norm(width, rngs)
        self.mlp = hierarchy.Mlp(width, int(mlp_ratio * width), dtype, rngs)

    def position_bias(self) -> Array:
        """Return the relative position bias (heads, m, m) of the attention."""
        return self.attention.position_bias()

    def attend(self, tokens: Array, bias: Array, shifted: bool) -> Array:
        """Run the first half of the block, the attention: (b, h*w, d) -> (b, h*w, d)."""
        x = self.attention_norm(tokens).astype(tokens.dtype)
        return tokens + self.attention(x, bias, shifted).astype(tokens.dtype)

    def transform(self, tokens: Array) -> Array:
        """Run the second half of the block, the MLP: (b, h*w, d) -> (b, h*w, d)."""
        return hierarchy.add_mlp(tokens, self.mlp, self.mlp_norm, norm_first=True)

    def __call__(self, tokens: Array, bias: Array, shifted: bool) -> Array:
        """(b, h*w, d) -> (b, h*w, d)."""
        return self.transform(self.attend(tokens, bias, shifted))


class PatchMerging(nnx.Module):
    """Merge four neighbours into one token of twice the channels; the norm comes first."""

    def __init__(self, size: tuple[int, int], width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.size, self.dtype = size, dtype
        self.norm = hierarchy.layer_norm(4 * width, rngs)
        self.reduction = dense.Linear(4 * width, 2 * width, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        """(b, h*w, d) -> (b, h*w/4, 2d)."""
        quads = self.norm(hierarchy.gather_quads(tokens, self.size))
        return self.reduction(quads.astype(self.dtype))


class HTSAT(hierarchy.Tower):
    """The HTS-AT tower: (b, frames, mels) log-mel in dB -> TowerOutput.

    Differs from the original: the tower has no frame-wise token-semantic head; HTSATTagger adds it.
    """

    def __init__(
        self,
        config: HTSATConfig,
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        remat_policy: str = 'everything',
    ):
        if config.image_size % config.mels:
            raise ValueError(
                f'image_size {config.image_size} is not a multiple of the {config.mels} mel bands'
            )
        self.config, self.dtype = config, dtype
        self.mel_norm = DataNorm(config.mels)  # the original's batch norm over mel bands
        self.patches = hierarchy.PatchEmbedding(config.patch, 1, config.width, dtype, rngs)

        def block(width, heads, window_map, stage):
            return lambda rngs: HTSATBlock(width, heads, window_map, config.mlp_ratio, dtype, rngs)

        self.build(
            config, (config.image_size, config.image_size), block, PatchMerging, remat_policy, rngs
        )

    def embed(self, x: Array) -> Array:
        """Return the tokens that enter stage 1: (b, frames, mels) -> (b, n1, d1).

        Raises:
          ValueError: the number of mel bands differs from the config's.
        """
        if x.shape[-1] != self.config.mels:
            raise ValueError(
                f'log-mel has {x.shape[-1]} bands, the tower expects {self.config.mels}'
            )
        return self.embed_normalised(self.mel_norm(x))

    def embed_normalised(self, x: Array) -> Array:
        """Return the tokens that enter stage 1, of a log-mel after `mel_norm`."""
        return self.patches(fold(x, self.config)[..., None])


def crops(config: HTSATConfig, frames: int) -> list[slice]:
    """Return the crops of a sound that the tower processes, as the original does at inference.

    A sound of up to `config.frames` frames is one crop, which the tower resizes. From a longer
    sound come two or three overlapping crops, each half as long as the sound; their outputs are
    averaged.

    Args:
      config: sizes of the tower.
      frames: number of frames of the sound.
    Raises:
      ValueError: half of the sound is longer than `config.frames`.
    """
    if frames <= config.frames:
        return [slice(0, frames)]
    length, step = (frames - 1) // 2, (frames - 1) // 4
    if length > config.frames:
        raise ValueError(
            f'a sound of {frames} frames; expected at most {2 * config.frames}: cut it into parts'
        )
    return [slice(start, start + length) for start in range(0, frames - length - 1, step)]


@flax.struct.dataclass
class Tags:
    """Probabilities of the classes in a sound.

    Attributes:
      clip: (b, classes) in [0, 1], for the whole sound.
      frames: (b, config.frames, classes) in [0, 1], for each frame.
    """

    clip: Array
    frames: Array


class HTSATTagger(nnx.Module):
    """HTS-AT with its token-semantic head: (b, frames, mels) log-mel in dB -> Tags.

    The last stage's map is unfolded from the square to (time, mel rows). The head is a convolution
    over three time steps and all mel rows.
    """

    def __init__(
        self, config: HTSATConfig, classes: int, *, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32
    ):
        self.config, self.classes = config, classes
        self.tower = HTSAT(config, rngs=rngs, dtype=dtype)
        self.side = config.image_size // config.patch // 8  # rows of the last stage's map
        if self.side % config.folds:
            raise ValueError(
                f'the last map has {self.side} rows, which do not unfold into {config.folds} pieces'
            )
        taps = 3 * self.side // config.folds
        self.head = dense.Linear(taps * self.tower.width_out, classes, dtype=dtype, rngs=rngs)

    def logits(self, tokens: Array) -> Array:
        """Return logits per time step: (b, n4, d4) -> (b, folds * side, classes) float32."""
        batch, _, width = tokens.shape
        folds, side = self.config.folds, self.side
        x = tokens.reshape(batch, folds, side // folds, side, width)
        x = x.transpose(0, 1, 3, 2, 4).reshape(batch, folds * side, -1)  # (b, time, rows * d)
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        taps = jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=-1)
        return self.head(taps).astype(jnp.float32)

    def __call__(self, log_mel: Array) -> Tags:
        """Tag sounds of any length; `crops` says how longer ones are cut."""
        parts = [log_mel[:, part] for part in crops(self.config, log_mel.shape[1])]
        logits = [self.logits(self.tower(part).tokens) for part in parts]
        clip = sum(jax.nn.sigmoid(x.mean(1)) for x in logits) / len(parts)
        frames = sum(jax.nn.sigmoid(x) for x in logits) / len(parts)
        repeats = self.config.frames // frames.shape[1]
        return Tags(clip, jnp.repeat(frames, repeats, axis=1))
