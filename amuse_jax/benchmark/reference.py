"""The PyTorch side: Hugging Face's models of the same sizes, as their users run them.

Attention is what transformers chooses: scaled_dot_product_attention for BERT, plain products for
Swin-V2 (cosine attention with a bias) and CLAP's HTS-AT. Weights are random, but norms are not
zero; the JAX side gets the same.
"""

import numpy as np
import torch
from ml_collections import ConfigDict
from transformers import BertConfig, BertModel, ClapAudioConfig, Swinv2Config, Swinv2Model
from transformers.models.clap.modeling_clap import ClapAudioModel


def build(config: ConfigDict, part: str, vocab_size: int) -> torch.nn.Module:
    """The tower `part` of the config: visual, audio or text; in float32, ready for inference."""
    sizes = config.model[part]
    if part == 'visual':
        model = Swinv2Model(
            Swinv2Config(
                image_size=sizes.image_size, patch_size=sizes.patch, embed_dim=sizes.width,
                depths=sizes.depths, num_heads=sizes.heads, window_size=sizes.window,
            )
        )  # fmt: skip
    elif part == 'audio':
        model = ClapAudioModel(
            ClapAudioConfig(
                spec_size=sizes.image_size, patch_size=sizes.patch, patch_stride=[sizes.patch] * 2,
                patch_embeds_hidden_size=sizes.width, depths=sizes.depths,
                num_attention_heads=sizes.heads, window_size=sizes.window,
                num_mel_bins=config.audio.mels, hidden_size=8 * sizes.width,
            )
        )  # fmt: skip
    else:
        model = BertModel(
            BertConfig(
                vocab_size=vocab_size, hidden_size=sizes.width, num_hidden_layers=sizes.depth,
                num_attention_heads=sizes.heads, intermediate_size=sizes.mlp_width,
                max_position_embeddings=sizes.max_words,
            ),
            add_pooling_layer=False,
        )  # fmt: skip
    return randomised(model).eval()


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def output(part: str, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """(b, d): pooled tokens of visual and audio; [CLS] of text."""
    if part == 'visual':
        return model(inputs[0].permute(0, 3, 1, 2)).pooler_output
    if part == 'audio':
        return model(input_features=inputs[0][:, None]).pooler_output
    return model(*inputs).last_hidden_state[:, 0]


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """With weights such as training leaves: fresh norms of Swin-V2 are zero and hide the rest."""
    torch.manual_seed(0)
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
