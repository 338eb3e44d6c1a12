"""timm's Swin-V2 in pieces, between which LAVISH and DG-SCT have adapters."""

import torch
from timm.models.swin_transformer_v2 import (
    SwinTransformerV2,
    SwinTransformerV2Block,
    SwinTransformerV2Stage,
)
from torch import nn

from amuse_jax.models import swin_v2
from amuse_jax.models.swin_v2 import SwinV2Config


class Swin(SwinTransformerV2):
    """Swin-V2 without its classifier, for frames (b, 3, h, w), uint8 or normalised."""

    def __init__(self, config: SwinV2Config):
        super().__init__(
            img_size=config.image_size, patch_size=config.patch, num_classes=0,
            embed_dim=config.width, depths=config.depths, num_heads=config.heads,
            window_size=config.window, pretrained_window_sizes=config.pretrained_windows,
        )  # fmt: skip
        for name, values in (
            ('mean', swin_v2.IMAGENET_MEAN),
            ('deviation', swin_v2.IMAGENET_STD),
        ):
            array = torch.tensor(values).reshape(3, 1, 1)
            self.register_buffer(name, array, persistent=False)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return the tokens (b, n, d) that enter the first stage."""
        return self.patch_embed(self._normalise(images)).flatten(1, 2)

    @torch.no_grad()
    def frozen_tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Run the whole tower without adapters: the tokens (b, n, d) after the last norm."""
        return self.forward_features(self._normalise(images)).flatten(1, 2)

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.uint8:
            return images
        return (images / 255 - self.mean) / self.deviation


def enter(stage: SwinTransformerV2Stage, x: torch.Tensor) -> torch.Tensor:
    """Merge patches at the start of a stage: (b, n, d) -> (b, n / 4, 2 d); none in the first."""
    if isinstance(stage.downsample, nn.Identity):
        return x
    side = int(x.shape[1] ** 0.5)
    return stage.downsample(x.reshape(len(x), side, side, -1)).flatten(1, 2)


def attend(block: SwinTransformerV2Block, x: torch.Tensor) -> torch.Tensor:
    """Return norm1(attention(x)), without the residual: (b, n, d) -> (b, n, d)."""
    y = block._attn(x.reshape(len(x), *block.input_resolution, -1))
    return block.norm1(y.reshape(x.shape))


def transform(block: SwinTransformerV2Block, x: torch.Tensor) -> torch.Tensor:
    """Return norm2(mlp(x)), without the residual: (b, n, d) -> (b, n, d)."""
    return block.norm2(block.mlp(x))


def released_name(name: str) -> str:
    """Return the name of an array in timm 0.6, whose stages merge patches at their end.

    Args:
      name: the name in timm today, under any prefix.
    """
    before, found, after = name.partition('swin.layers.')
    stage, _, rest = after.partition('.')
    if not found or not rest.startswith('downsample.'):
        return name
    return f'{before}swin.layers.{int(stage) - 1}.{rest}'
