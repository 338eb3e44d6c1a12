"""Window attention by PyTorch's fused attention, and what frozen towers can store.

Hugging Face's Swin-V2 and HTS-AT write the scores of queries and keys to memory, add a bias and a
mask to them, and take their softmax. `fuse_attention` gives the same modules one call of
scaled_dot_product_attention. `store_frozen` then stores what depends on frozen weights alone.
Neither changes the results.

Axes: b images, w windows of an image, n tokens of a window, h heads, c channels of a head.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers.models.clap.modeling_clap import ClapAudioLayer, ClapAudioSelfAttention
from transformers.models.swinv2.modeling_swinv2 import Swinv2Layer, Swinv2SelfAttention

MAX_LOGIT_SCALE = math.log(100.0)  # Swin-V2: tau >= 0.01
BIAS_LIMIT = 16.0  # Swin-V2's position bias lies in (0, 16)


class WindowAttention(nn.Module):
    """Softmax(scale * q k^T + bias + mask) v inside every window, fused.

    It holds the parameters of Hugging Face's module under the same names, and can stand in for it.

    Args:
      original: Hugging Face's module.
      mask: (w, n, n), what is added to the scores of each window; None if windows are not shifted.
    """

    scale: float | None = None  # of the scores; None: 1 / sqrt(c)

    def __init__(
        self,
        original: Swinv2SelfAttention | ClapAudioSelfAttention,
        mask: torch.Tensor | None,
    ):
        super().__init__()
        self.heads = original.num_attention_heads
        self.query, self.key, self.value = original.query, original.key, original.value
        self.windows = 1 if mask is None else len(mask)
        mask = None if mask is None else mask[:, None]
        self.register_buffer('mask', mask, persistent=False)
        self.register_buffer('stored_bias', None, persistent=False)
        persistent = 'relative_position_index' in original.state_dict()
        index = original.relative_position_index
        self.register_buffer('relative_position_index', index, persistent=persistent)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor]:
        """Attend inside each window: (b * w, n, h * c) -> (b * w, n, h * c).

        `attention_mask` is not used, because the module has it. The weights cannot be returned.
        """
        query, key, value = (
            self._split(layer(hidden_states)) for layer in (self.query, self.key, self.value)
        )
        query, key = self.compare(query, key)
        bias = self.bias() if self.stored_bias is None else self.stored_bias
        attended = functional.scaled_dot_product_attention(
            query, key, value, bias, scale=self.scale
        )
        return (self._join(attended),)

    def compare(self, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the queries and keys (b, w * h, n, c) whose products are the scores."""
        return query, key

    def position_bias(self) -> torch.Tensor:
        """Return the position bias (h, n, n)."""
        table = self.relative_position_bias_table
        bias = table[self.relative_position_index.flatten()]
        return bias.unflatten(0, self.relative_position_index.shape).permute(2, 0, 1)

    def bias(self) -> torch.Tensor:
        """Return what is added to the scores: (1, w * h, n, n), or (1, h, n, n) without a mask."""
        bias = self.position_bias()
        return bias[None] if self.mask is None else (bias + self.mask).flatten(0, 1)[None]

    def store(self, dtype: torch.dtype) -> None:
        """Store the bias in this dtype, if its parameters are frozen."""
        bias = self.bias()
        if not bias.requires_grad:
            self.stored_bias = bias.to(dtype).contiguous()

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(b * w, n, h * c) -> (b, w * h, n, c): each window's heads are heads of the image.

        In this layout all images share the mask.
        """
        x = x.unflatten(0, (-1, self.windows)).unflatten(-1, (self.heads, -1))
        return x.transpose(2, 3).flatten(1, 2)

    def _join(self, x: torch.Tensor) -> torch.Tensor:
        """Invert `_split`."""
        x = x.unflatten(1, (self.windows, self.heads)).transpose(2, 3)
        return x.flatten(3).flatten(0, 1)


class BiasTableAttention(WindowAttention):
    """HTS-AT's attention: the bias is a table of one value for every offset."""

    def __init__(self, original: ClapAudioSelfAttention, mask: torch.Tensor | None):
        super().__init__(original, mask)
        self.relative_position_bias_table = original.relative_position_bias_table


class CosineAttention(WindowAttention):
    """Swin-V2's attention: softmax(cos(q, k) / tau + B) v, with B from an MLP of the offsets."""

    scale = 1.0

    def __init__(self, original: Swinv2SelfAttention, mask: torch.Tensor | None):
        # Hugging Face adds the mask twice.
        super().__init__(original, None if mask is None else 2 * mask)
        self.logit_scale = original.logit_scale
        self.continuous_position_bias_mlp = original.continuous_position_bias_mlp
        offsets = original.relative_coords_table
        self.register_buffer('relative_coords_table', offsets, persistent=False)

    def compare(self, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unit queries divided by tau, and unit keys."""
        scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp().repeat(self.windows, 1, 1)
        return functional.normalize(query, dim=-1) * scale, functional.normalize(key, dim=-1)

    @property
    def relative_position_bias_table(self) -> torch.Tensor:
        """The continuous position bias of every offset, (offsets, h).

        Half its limit is subtracted, which the softmax ignores: bfloat16 rounds -8 to 8 less than 0
        to 16.
        """
        table = self.continuous_position_bias_mlp(self.relative_coords_table)
        return BIAS_LIMIT * table.flatten(0, -2).sigmoid() - BIAS_LIMIT / 2


def has_window_attention(model: nn.Module) -> bool:
    """Return whether a part of the model has Hugging Face's window attention."""
    return any(isinstance(module, Swinv2Layer | ClapAudioLayer) for module in model.modules())


def fuse_attention(model: nn.Module) -> nn.Module:
    """Replace all window attention of a model, in place, by fused attention; return the model."""
    for layer in model.modules():
        if isinstance(layer, Swinv2Layer | ClapAudioLayer):
            kind = CosineAttention if isinstance(layer, Swinv2Layer) else BiasTableAttention
            layer.attention.self = kind(layer.attention.self, _mask(layer))
            layer.get_attn_mask = _no_mask  # the attention has it
    return model


def store_frozen(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Store what depends on frozen weights alone, in place, and return the model.

    It stores the position biases, and the weights of linear layers and convolutions in the compute
    dtype, which autocast would convert in every call.

    Args:
      model: a model after `fuse_attention`; its parameters may be shared with other models, which
        keep theirs.
      dtype: the dtype of the computation.
    """
    for module in model.modules():
        if isinstance(module, WindowAttention):
            module.store(dtype)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad and parameter.dtype != dtype:
                    stored = nn.Parameter(parameter.to(dtype), requires_grad=False)
                    setattr(module, name, stored)
    return model


def _mask(layer: Swinv2Layer | ClapAudioLayer) -> torch.Tensor | None:
    """Return the mask (w, n, n) that the layer computes in every call; None without a shift."""
    if isinstance(layer, ClapAudioLayer):
        layer.set_shift_and_window_size(layer.input_resolution)
    window = layer.window_size
    padded = (-(-side // window) * window for side in layer.input_resolution)
    weight = layer.attention.self.query.weight
    return layer.get_attn_mask(*padded, dtype=torch.float32, device=weight.device)


def _no_mask(*args, **options) -> None:
    return None
