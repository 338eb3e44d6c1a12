"""Hugging Face's towers at the sizes of a config; they run as a whole or in pieces."""

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn
from transformers import BertConfig, BertModel, ClapAudioConfig, Swinv2Config, Swinv2Model
from transformers.models.clap.modeling_clap import ClapAudioModel

from amuse_jax.models.swin_v2 import IMAGENET_MEAN, IMAGENET_STD

PARTS = ('visual', 'audio', 'text')


class _PiecewiseTower:
    """A tower of four stages that can be interrupted in the third, where the adapters are.

    Attributes:
      stages: the four stages; a subclass defines them.
      last_norm: the norm of the output; a subclass defines it.
    """

    stages: nn.ModuleList
    last_norm: nn.LayerNorm

    def enter(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run stages 1 and 2: from tokens that enter stage 1 to tokens that enter stage 3."""
        for stage in self.stages[:2]:
            tokens = stage(tokens, stage.blocks[0].input_resolution)[0]
        return tokens

    def run_round(self, tokens: torch.Tensor, index: int, rounds: int) -> torch.Tensor:
        """Run the blocks of stage 3 that belong to round `index` of `rounds`."""
        blocks = self.stages[2].blocks
        count = len(blocks) // rounds
        for block in blocks[index * count : (index + 1) * count]:
            tokens = block(tokens, block.input_resolution)[0]
        return tokens

    def tail(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the rest of the tower: from tokens after stage 3's blocks to pooled (b, d)."""
        third, fourth = self.stages[2:]
        tokens = third.downsample(tokens, third.blocks[0].input_resolution)
        tokens = fourth(tokens, fourth.blocks[0].input_resolution)[0]
        return self.last_norm(tokens).mean(1)

    def pooled(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run the whole tower without adapters; return pooled features (b, d)."""
        return self.tail(self.run_round(self.stem(inputs), 0, 1))


class VisualTower(_PiecewiseTower, Swinv2Model):
    """Swin-V2 for frames."""

    def __init__(self, sizes: ConfigDict):
        super().__init__(
            Swinv2Config(
                image_size=sizes.image_size,
                patch_size=sizes.patch,
                embed_dim=sizes.width,
                depths=sizes.depths,
                num_heads=sizes.heads,
                window_size=sizes.window,
                pretrained_window_sizes=sizes.pretrained_windows,
            )
        )
        self.register_buffer('mean', torch.tensor(IMAGENET_MEAN), persistent=False)
        self.register_buffer('deviation', torch.tensor(IMAGENET_STD), persistent=False)

    @property
    def stages(self) -> nn.ModuleList:
        """The four stages."""
        return self.encoder.layers

    @property
    def last_norm(self) -> nn.LayerNorm:
        """The norm of the output."""
        return self.layernorm

    def stem(self, frames: torch.Tensor) -> torch.Tensor:
        """Run frames (b, height, width, 3), uint8 RGB, up to stage 3; return tokens (b, n3, d3)."""
        pixels = ((frames / 255 - self.mean) / self.deviation).permute(0, 3, 1, 2)
        return self.enter(self.embeddings(pixels)[0])


class AudioTower(_PiecewiseTower, ClapAudioModel):
    """HTS-AT for log-mel spectrograms, from CLAP's implementation."""

    def __init__(self, sizes: ConfigDict, mels: int):
        super().__init__(
            ClapAudioConfig(
                spec_size=sizes.image_size,
                patch_size=sizes.patch,
                patch_stride=[sizes.patch] * 2,
                patch_embeds_hidden_size=sizes.width,
                depths=sizes.depths,
                num_attention_heads=sizes.heads,
                window_size=sizes.window,
                num_mel_bins=mels,
                hidden_size=8 * sizes.width,
            )
        )

    @property
    def stages(self) -> nn.ModuleList:
        """The four stages."""
        return self.audio_encoder.layers

    @property
    def last_norm(self) -> nn.LayerNorm:
        """The norm of the output."""
        return self.audio_encoder.norm

    def stem(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Run log-mels (b, frames, mels) in dB up to stage 3; return tokens (b, n3, d3)."""
        encoder = self.audio_encoder
        # The norm's channels are the mel bands.
        normed = encoder.batch_norm(log_mel.transpose(1, 2)[..., None])  # (b, mels, frames, 1)
        image = encoder.reshape_mel2img(normed.permute(0, 3, 2, 1))
        return self.enter(encoder.patch_embed(image))


class TextTower(BertModel):
    """BERT for words."""

    def __init__(self, sizes: ConfigDict, vocab_size: int):
        super().__init__(
            BertConfig(
                vocab_size=vocab_size,
                hidden_size=sizes.width,
                num_hidden_layers=sizes.depth,
                num_attention_heads=sizes.heads,
                intermediate_size=sizes.mlp_width,
                max_position_embeddings=sizes.max_words,
                layer_norm_eps=sizes.epsilon,
            ),
            add_pooling_layer=False,
        )

    def run_round(
        self, tokens: torch.Tensor, mask: torch.Tensor, index: int, rounds: int
    ) -> torch.Tensor:
        """Run the layers of round `index` of `rounds` on tokens (b, n, d) with a mask (b, n)."""
        layers = self.encoder.layer
        count = len(layers) // rounds
        for layer in layers[index * count : (index + 1) * count]:
            tokens = layer(tokens, mask[:, None, None, :])
        return tokens


def build(config: ConfigDict, part: str, vocab_size: int = 0, seed: int = 0) -> nn.Module:
    """Build a tower with random float32 weights, in evaluation mode.

    Args:
      config: the sizes.
      part: a name from PARTS.
      vocab_size: the number of rows in the text tower's word table.
      seed: the seed of the weights.
    """
    sizes = config.model[part]
    if part == 'visual':
        model = VisualTower(sizes)
    elif part == 'audio':
        model = AudioTower(sizes, config.audio.mels)
    else:
        model = TextTower(sizes, vocab_size)
    return randomise(model, seed).eval()


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model random weights similar to trained ones, and return it.

    Initial weights would hide mistakes: the norms of Swin-V2 start at zero.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = 'norm' in name.lower() and name.endswith('weight')
            parameter.normal_(1.0 if is_scale else 0.0, 0.1 if is_scale else 0.03)
            if name.endswith('logit_scale'):
                parameter.uniform_(0.0, 2.0)
        for name, buffer in model.named_buffers():
            if name.endswith('running_mean'):
                buffer.normal_(-30, 5)
            if name.endswith('running_var'):
                buffer.uniform_(100, 300)
    return model


def state_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """Return the model's parameters and buffers as NumPy arrays, by name."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def output(part: str, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the output (b, d) of Hugging Face's own forward pass.

    It is the pooled tokens of the visual and audio towers, and [CLS] of the text tower.
    """
    if part == 'visual':
        return model(inputs[0].permute(0, 3, 1, 2)).pooler_output
    if part == 'audio':
        return model(input_features=inputs[0][:, None]).pooler_output
    return model(*inputs).last_hidden_state[:, 0]
