"""PSTP-Net's public class `PSTP_Net`: what its forward computes, and its four modules in use."""

import torch
import torch.nn.functional as F
from torch import nn

from amuse_jax.benchmark.reference.peers import parts
from amuse_jax.benchmark.reference.peers.parts import Tensors
from amuse_jax.models.peers.pstp import PSTPConfig


class Layer(nn.Module):
    """The layer of both global modules.

    Args:
      config: the sizes.
      crosses: whether the layer also attends to another stream.
    """

    def __init__(self, config: PSTPConfig, crosses: bool):
        super().__init__()
        d = config.width
        self.self_attn = _attention(config, heads=1)
        if crosses:
            self.cm_attn = _attention(config, heads=1)
        self.linear1, self.linear2 = nn.Linear(d, d), nn.Linear(d, d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Own tokens (b, n, d), tokens (b, m, d) of the other stream or None -> (b, n, d)."""
        total = x + parts.attend(self.self_attn, x, x)
        if other is not None:
            total = total + parts.attend(self.cm_attn, x, other)
        x = self.norm1(total)
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class SegmentSelection(nn.Module):
    """TSSM: weighs the segments of the video by the question."""

    def __init__(self, config: PSTPConfig):
        super().__init__()
        self.attn_qst_query = _attention(config, config.heads)
        self.clip_fc = nn.Linear(2 * config.width, config.width)

    def forward(self, question: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """(b, d), means of both streams (b, segments, 2 d) -> weights (b, segments)."""
        return _weights(self.attn_qst_query, question, self.clip_fc(torch.tanh(means)))


class PatchSelection(nn.Module):
    """SRSM: weighs the patches of a frame by the question."""

    def __init__(self, config: PSTPConfig):
        super().__init__()
        self.attn_qst_query = _attention(config, config.heads)

    def forward(self, question: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """(b, d), (b, p, d) -> weights (b, p)."""
        return _weights(self.attn_qst_query, question, patches)


class AudioGuidedAttention(nn.Module):
    """AVAM: what a second of sound finds among the patches of its frame."""

    def __init__(self, config: PSTPConfig):
        super().__init__()
        d = config.width
        self.attn_audio_query = _attention(config, config.heads)
        self.audio_query_linear1, self.audio_query_linear2 = nn.Linear(d, d), nn.Linear(d, d)
        self.audio_query_visual_norm = nn.LayerNorm(d)

    def forward(self, audio: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """(b, d), (b, p, d) -> (b, d)."""
        x = parts.attend(self.attn_audio_query, audio[:, None], patches)[:, 0]
        hidden = self.audio_query_linear1(x).relu()
        return self.audio_query_visual_norm(x + self.audio_query_linear2(hidden))


class Layers(nn.Module):
    """A global module: the public class has a list of one layer in it."""

    def __init__(self, config: PSTPConfig, crosses: bool):
        super().__init__()
        self.layers = nn.ModuleList([Layer(config, crosses)])


class PSTPReleased(nn.Module):
    """What the released forward computes."""

    def __init__(self, config: PSTPConfig):
        super().__init__()
        self.config, d, clip = config, config.width, config.clip_width
        self.fc_a, self.fc_v = nn.Linear(config.audio_width, d), nn.Linear(clip, d)
        self.fc_word = nn.Linear(clip, d)
        if config.vocabulary:
            self.fc_q = parts.QuestionEncoder(config.vocabulary, d)
        else:
            self.fc_q = nn.Linear(clip, d)
        self.GlobalSelf_Module = Layers(config, crosses=False)
        self.fc_answer_pred = nn.Linear(d, config.answers)

    def forward(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Answer questions.

        Args:
          inputs: `question` (b, clip) or word ids (b, n), `audio` (b, s, a), `frames` (b, s, clip)
            and `words` (b, n, clip).

        Returns:
          `logits` (b, answers), and the intermediates by name.
        """
        streams = (self.fc_a, 'audio'), (self.fc_v, 'frames'), (self.fc_word, 'words')
        tokens = [layer(inputs[name]) for layer, name in streams]
        return self.answer(tokens, self.fc_q(inputs['question']))

    def answer(self, tokens: list[torch.Tensor], question: torch.Tensor) -> dict[str, torch.Tensor]:
        """Answer by all tokens, each (b, ..., d), and the question (b, d)."""
        tokens = self.GlobalSelf_Module.layers[0](torch.cat(tokens, 1))
        logits = self.fc_answer_pred(torch.tanh(tokens.mean(1) * question))
        return {'question': question, 'tokens': tokens, 'logits': logits}


class PSTPPaper(PSTPReleased):
    """The same with the four modules of the paper, repaired and used."""

    def __init__(self, config: PSTPConfig):
        super().__init__(config)
        self.fc_p = nn.Linear(config.clip_width, config.width)
        self.TempSegsSelect_Module = SegmentSelection(config)
        self.SpatRegsSelect_Module = PatchSelection(config)
        self.AudioGuidedVisualAttn = AudioGuidedAttention(config)
        self.GlobalLocal_Module = Layers(config, crosses=True)

    def forward(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Answer questions; `inputs` has `patches` (b, s, p, clip) too."""
        q, a, v = self.fc_q(inputs['question']), self.fc_a(inputs['audio']), inputs['frames']
        v = self.fc_v(v)
        seconds, segment_weights = self.select_seconds(q, a, v)
        rows = torch.arange(len(q), device=q.device)[:, None]
        picked_a, picked_v = a[rows, seconds], v[rows, seconds]  # (b, f, d)

        patches = self.fc_p(inputs['patches'][rows, seconds]).flatten(0, 1)  # (b * f, p, d)
        asked = q.repeat_interleave(seconds.shape[1], 0)
        patch_weights = self.SpatRegsSelect_Module(asked, patches)
        places = best(patch_weights, self.config.top_patches)
        patches = patches.take_along_dim(places[..., None], 1)
        heard = self.AudioGuidedVisualAttn(picked_a.flatten(0, 1), patches)
        heard, patches = (x.unflatten(0, seconds.shape) for x in (heard, patches))

        layer = self.GlobalLocal_Module.layers[0]
        exchanged_a = layer(a, v)
        exchanged_v = layer(v, exchanged_a)
        tokens = [
            *(picked_a, exchanged_a, a),
            *(picked_v, patches.flatten(1, 2), heard, exchanged_v, v),
            self.fc_word(inputs['words']),
        ]
        return self.answer(tokens, q) | {
            'selection.seconds': seconds,
            'selection.patches': places.unflatten(0, seconds.shape),
            'selection.segment_weights': segment_weights,
            'selection.patch_weights': patch_weights.unflatten(0, seconds.shape),
            'selection.heard': heard,
            'selection.audio': exchanged_a,
            'selection.visual': exchanged_v,
        }

    def select_seconds(
        self, question: torch.Tensor, audio: torch.Tensor, visual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the seconds (b, f) of the best segments, ascending, and the weights of all."""
        segments = self.config.segments
        length = audio.shape[1] // segments
        means = [x.unflatten(1, (segments, length)).mean(2) for x in (audio, visual)]
        weights = self.TempSegsSelect_Module(question, torch.cat(means, -1))
        chosen = best(weights, self.config.top_segments)[..., None]
        within = torch.arange(length, device=chosen.device)
        return (chosen * length + within).flatten(1), weights


def best(weights: torch.Tensor, count: int) -> torch.Tensor:
    """Return the places of the largest weights, ascending: (..., n) -> (..., count)."""
    return weights.topk(count).indices.sort().values


def _attention(config: PSTPConfig, heads: int) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(config.width, heads, config.dropout, batch_first=True)


def _weights(
    layer: nn.MultiheadAttention, query: torch.Tensor, memory: torch.Tensor
) -> torch.Tensor:
    """Return the attention weights alone, averaged over the heads: (b, d), (b, n, d) -> (b, n)."""
    d, split = layer.embed_dim, (layer.num_heads, layer.head_dim)
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    query = F.linear(query, weight[:d], bias[:d]).unflatten(-1, split)
    key = F.linear(memory, weight[d : 2 * d], bias[d : 2 * d]).unflatten(-1, split)
    scores = torch.einsum('bhc,bnhc->bhn', query, key) * layer.head_dim**-0.5
    return scores.softmax(-1).mean(1)
