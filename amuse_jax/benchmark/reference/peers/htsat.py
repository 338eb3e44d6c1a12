"""The released HTS-AT (Chen et al. 2022) in pieces, between which DG-SCT has adapters.

Axes: b sounds, w windows of a map, n tokens of a window, h heads, c channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import nn

from amuse_jax.models.htsat import HTSATConfig

DECIBELS, VARIANCE = -30.0, 200.0  # of log-mels, before any training


class PatchEmbedding(nn.Module):
    """Patches of the folded spectrogram and their norm."""

    def __init__(self, config: HTSATConfig):
        super().__init__()
        self.proj = nn.Conv2d(1, config.width, config.patch, config.patch)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 1, s, s) -> (b, n, d)."""
        return self.norm(self.proj(images).flatten(2).mT)


class WindowAttention(nn.Module):
    """Softmax(q k^T / sqrt(c) + bias + mask) v inside every window.

    Args:
      width, heads: channels and heads.
      window: side of a window.
      mask: (w, n, n), what is added to the scores of each window; None if windows are not shifted.
    """

    def __init__(self, width: int, heads: int, window: int, mask: torch.Tensor | None):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        table = torch.zeros((2 * window - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(table)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer('index', _offsets(window), persistent=False)
        self.register_buffer('mask', mask, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b * w, n, d) -> (b * w, n, d)."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)
        scores = query * self.scale @ key.mT + bias
        if self.mask is not None:
            scores = scores.unflatten(0, (-1, len(self.mask))) + self.mask[:, None]
            scores = scores.flatten(0, 1)
        return self.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """W2 gelu(W1 x)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., d)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm window attention and MLP, each with a residual.

    Args:
      config: sizes of the tower.
      stage: number of the stage, from 0.
      shifted: whether the windows are shifted by half a window, where there are several.
    """

    def __init__(self, config: HTSATConfig, stage: int, shifted: bool):
        super().__init__()
        width, self.side = config.width << stage, _side(config, stage)
        self.window = window = min(config.window, self.side)
        self.shift = window // 2 if shifted and self.side > window else 0
        mask = _mask(self.side, window, self.shift) if self.shift else None
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = WindowAttention(width, config.heads[stage], window, mask)
        self.mlp = MLP(width, int(config.mlp_ratio * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, side * side, d) -> the same shape."""
        count, window, shift = self.side // self.window, self.window, self.shift
        y = self.norm1(x).unflatten(1, (self.side, self.side))
        y = torch.roll(y, (-shift, -shift), (1, 2)) if shift else y
        y = y.unflatten(1, (count, window)).unflatten(3, (count, window)).transpose(2, 3)
        y = self.attn(y.reshape(-1, window**2, x.shape[-1]))
        y = y.reshape(-1, count, count, window, window, x.shape[-1]).transpose(2, 3)
        y = y.reshape(-1, self.side, self.side, x.shape[-1])
        y = torch.roll(y, (shift, shift), (1, 2)) if shift else y
        x = x + y.flatten(1, 2)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Joins squares of four tokens: (b, n, d) -> (b, n / 4, 2 d)."""

    def __init__(self, width: int, side: int):
        super().__init__()
        self.side = side
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, side * side, d) -> (b, side * side / 4, 2 d)."""
        x = x.unflatten(1, (self.side, self.side))
        quads = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(quads, -1).flatten(1, 2)))


class Stage(nn.Module):
    """The blocks of a stage, and in all but the last one the merging of patches after them."""

    def __init__(self, config: HTSATConfig, stage: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(config, stage, shifted=place % 2 == 1) for place in range(config.depths[stage])
        )
        if stage < len(config.depths) - 1:
            self.downsample = PatchMerging(config.width << stage, _side(config, stage))


class HTSAT(nn.Module):
    """`HTSAT_Swin_Transformer` for log-mels, without its classifier."""

    def __init__(self, config: HTSATConfig):
        super().__init__()
        self.config = config
        self.bn0 = nn.BatchNorm2d(config.mels)
        self.bn0.running_mean.fill_(DECIBELS)
        self.bn0.running_var.fill_(VARIANCE)
        self.patch_embed = PatchEmbedding(config)
        self.layers = nn.ModuleList(Stage(config, i) for i in range(len(config.depths)))
        self.norm = nn.LayerNorm(config.width << (len(config.depths) - 1))

    def normalise(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Normalise each mel band of log-mels (b, frames, mels) in dB by stored statistics."""
        return self.bn0(log_mel.mT[..., None])[..., 0].mT

    def embed(self, normalised: torch.Tensor) -> torch.Tensor:
        """(b, frames, mels), normalised, frames <= config.frames -> tokens (b, n, d)."""
        config, x = self.config, normalised[:, None]
        if x.shape[2] < config.frames:
            x = F.interpolate(x, (config.frames, x.shape[3]), mode='bicubic', align_corners=True)
        x = x[:, 0].mT.unflatten(2, (config.folds, -1))  # (b, mels, folds, frames / folds)
        return self.patch_embed(x.transpose(1, 2).flatten(1, 2)[:, None])

    def features(self, normalised: torch.Tensor) -> torch.Tensor:
        """Run the whole tower: (b, frames, mels) -> tokens (b, n, d) after the last norm."""
        x = self.embed(normalised)
        for i, stage in enumerate(self.layers):
            x = self.layers[i - 1].downsample(x) if i else x
            for block in stage.blocks:
                x = block(x)
        return self.norm(x)


def _side(config: HTSATConfig, stage: int) -> int:
    """Return the height and width of a stage's map in tokens."""
    return config.image_size // config.patch >> stage


def _offsets(window: int) -> torch.Tensor:
    """Return the row (n, n) of the bias table for each pair of tokens."""
    place = torch.stack(torch.meshgrid(*[torch.arange(window)] * 2, indexing='ij')).flatten(1)
    offset = place[:, :, None] - place[:, None] + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


def _mask(side: int, window: int, shift: int) -> torch.Tensor:
    """Return (w, n, n): -100 between tokens of a window that the shift brought together."""
    part = torch.zeros(side)
    part[side - window :] += 1
    part[side - shift :] += 1
    region = (3 * part[:, None] + part).reshape(side // window, window, -1, window)
    region = region.transpose(1, 2).reshape(-1, window * window)
    return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)
