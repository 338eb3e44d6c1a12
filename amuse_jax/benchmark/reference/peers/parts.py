"""The question encoder and the answer head that the public classes share, and random weights."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from amuse_jax.models.peers.grounded_head import HeadConfig

Tensors = Mapping[str, torch.Tensor]


class QuestionEncoder(nn.Module):
    """E = W tanh([h; c]) with h, c the last states of an LSTM over tanh(embedded words)."""

    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.word2vec = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width)
        self.fc = nn.Linear(2 * width, width)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """(b, n) word ids -> (b, d)."""
        x = torch.tanh(self.word2vec(words)).transpose(0, 1)
        _, (hidden, cell) = self.lstm(x)
        return self.fc(torch.tanh(torch.cat([hidden[-1], cell[-1]], -1)))


class Grounding(nn.Module):
    """The layers that tell whether a sound belongs to a frame.

    They are AVST's first training stage, `AVQA_AVatt_Grounding`, and the beginning of its head.

    Args:
      config: sizes of the head.
      audio_width: channels of the audio features; 0 for no first projection of them.
    """

    def __init__(self, config: HeadConfig, audio_width: int):
        super().__init__()
        d, widths = config.width, config.match_widths
        if audio_width:
            self.fc_a1 = nn.Linear(audio_width, d)
        self.fc_a2 = nn.Linear(d, d)
        self.fc_gl, self.fc1 = nn.Linear(2 * d, d), nn.Linear(2 * d, widths[0])
        self.fc2, self.fc3 = nn.Linear(widths[0], widths[1]), nn.Linear(widths[1], widths[2])
        self.fc4 = nn.Linear(widths[2], 2)

    def ground(self, audio: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(b, t, d), (b, t, d, p) -> attention (b, t, p), visual (b, t, d), match (b, t, 2)."""
        normal = F.normalize(maps, dim=2)
        attention = torch.einsum('btd,btdp->btp', F.normalize(audio, dim=-1), normal).softmax(-1)
        picked = torch.einsum('btp,btdp->btd', attention, normal)
        visual = self.fc_gl(torch.tanh(torch.cat([maps.mean(-1), picked], -1)))
        x = torch.cat([audio, visual], -1)
        for layer in (self.fc1, self.fc2, self.fc3):
            x = layer(x).relu()
        return attention, visual, self.fc4(x)


class Head(Grounding):
    """AVST's layers after the features, which LAVISH and DG-SCT took over; arguments as above."""

    def __init__(self, config: HeadConfig, audio_width: int):
        super().__init__(config, audio_width)
        d = config.width
        self.attn_a = nn.MultiheadAttention(d, config.heads, config.dropout)
        self.attn_v = nn.MultiheadAttention(d, config.heads, config.dropout)
        for name in ('linear11', 'linear12', 'linear21', 'linear22'):
            setattr(self, name, nn.Linear(d, d))
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.fc_fusion, self.fc_ans = nn.Linear(2 * d, d), nn.Linear(d, config.answers)
        self.question_encoder = QuestionEncoder(config.vocabulary, d)

    def answer(
        self,
        words: torch.Tensor,
        audio: torch.Tensor,
        maps: torch.Tensor,
        negative: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Answer questions.

        Args:
          words: (b, n) word ids.
          audio: (b, t, d), after fc_a2.
          maps: (b, t, d, p) maps of the video's own frames.
          negative: (b, t, d, p) maps of other videos' frames, or None.

        Returns:
          `logits` (b, answers), and the intermediates by name.
        """
        question = self.question_encoder(words)
        attention, visual, match = self.ground(audio, maps)
        v = attend(self.attn_v, question[None], visual.transpose(0, 1))[0]
        v = self.norm1(v + self.linear12(self.linear11(v).relu()))
        a = attend(self.attn_a, question[None], audio.transpose(0, 1))[0]
        a = self.norm2(a + self.linear22(self.linear21(a).relu()))
        fused = torch.cat([a + audio.mean(1), v + visual.mean(1)], -1)
        fused = self.fc_fusion(torch.tanh(fused))
        given = {} if negative is None else {'negative.match': self.ground(audio, negative)[2]}
        return given | {
            'question': question,
            'positive.attention': attention,
            'positive.visual': visual,
            'positive.match': match,
            'attended_visual': v,
            'attended_audio': a,
            'fused': fused,
            'logits': self.fc_ans(torch.tanh(fused * question)),
        }


def attend(layer: nn.MultiheadAttention, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Return what `query` finds in `memory`, which gives both keys and values."""
    return layer(query, memory, memory, need_weights=False)[0]


def randomise(model: nn.Module, seed: int = 0, scale: float = 0.3) -> nn.Module:
    """Draw every weight, gates and norms that start at zero or one too; return the model.

    Gates of zero would hide mistakes. Statistics of batch norms are drawn around their values.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.normal_(0, scale if fan_in == 1 else fan_in**-0.5, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                module.weight.add_(1)
            if isinstance(module, nn.BatchNorm2d):
                drawn = torch.empty_like(module.running_mean)
                deviation = module.running_var.sqrt()
                module.running_mean += deviation * drawn.normal_(0, scale, generator=generator)
                module.running_var *= drawn.uniform_(0.5, 2, generator=generator)
    return model.eval()


def state(model: nn.Module, prefix: str = '') -> dict[str, np.ndarray]:
    """Return the model's parameters and buffers by name, with a prefix."""
    return {prefix + name: tensor.numpy() for name, tensor in model.state_dict().items()}


def torch_inputs(inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the inputs of a model of models/peers as tensors in the layout of its public class.

    Frames and maps (b, t, h, w, d) have channels first there, and word ids are int64.
    """
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}
    tensors |= {
        name: x.permute(0, 1, 4, 2, 3).contiguous() for name, x in tensors.items() if x.ndim == 5
    }
    return {name: x.long() if x.dtype == torch.int32 else x for name, x in tensors.items()}
