"""Plain PyTorch descriptions of the parts that the public classes share, with their names."""

import torch
import torch.nn.functional as F
from torch import nn


def randomise(model, seed=0, scale=0.3):
    """Draw every parameter, gates and norms that start at zero or one too; return the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.normal_(0, scale if fan_in == 1 else fan_in**-0.5, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith('running_var'):
                buffer.uniform_(0.5, 2, generator=generator)
            elif name.endswith('running_mean'):
                buffer.normal_(0, scale, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                module.weight.add_(1)
    return model.eval()


def state(model, prefix=''):
    return {prefix + name: tensor.numpy() for name, tensor in model.state_dict().items()}


class QuestionEncoder(nn.Module):
    def __init__(self, vocabulary, width):
        super().__init__()
        self.word2vec = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width)
        self.fc = nn.Linear(2 * width, width)

    def forward(self, words):
        x = torch.tanh(self.word2vec(words)).transpose(0, 1)
        _, (hidden, cell) = self.lstm(x)
        return self.fc(torch.tanh(torch.cat([hidden[-1], cell[-1]], -1)))


class Head(nn.Module):
    """AVST's layers after the features; `unused` are those that its forward never calls."""

    def __init__(self, width, audio_width, answers, vocabulary, match, unused=True):
        super().__init__()
        d = width
        self.fc_a1, self.fc_a2 = nn.Linear(audio_width, d), nn.Linear(d, d)
        self.fc_a1_pure, self.fc_a2_pure = nn.Linear(audio_width, d), nn.Linear(d, d)
        self.fc_gl, self.fc1 = nn.Linear(2 * d, d), nn.Linear(2 * d, match[0])
        self.fc2, self.fc3 = nn.Linear(match[0], match[1]), nn.Linear(match[1], match[2])
        self.fc4 = nn.Linear(match[2], 2)
        self.attn_a = nn.MultiheadAttention(d, 4, dropout=0.1)
        self.attn_v = nn.MultiheadAttention(d, 4, dropout=0.1)
        for name in ('linear11', 'linear12', 'linear21', 'linear22'):
            setattr(self, name, nn.Linear(d, d))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d) for _ in range(3))
        self.fc_fusion, self.fc_ans = nn.Linear(2 * d, d), nn.Linear(d, answers)
        self.question_encoder = QuestionEncoder(vocabulary, d)
        if unused:
            self.fc_v, self.fc = nn.Linear(2048, d), nn.Linear(2 * d, d)
            self.fc_st = nn.Linear(d, d)
            self.fc_aq, self.fc_vq = nn.Linear(d, d), nn.Linear(d, d)

    def ground(self, audio, maps):
        """(b, t, d), (b, t, d, p) -> attention, grounded vector, match logits."""
        normal = F.normalize(maps, dim=2)
        attention = torch.einsum('btd,btdp->btp', F.normalize(audio, dim=-1), normal).softmax(-1)
        picked = torch.einsum('btp,btdp->btd', attention, normal)
        visual = self.fc_gl(torch.tanh(torch.cat([maps.mean(-1), picked], -1)))
        x = torch.cat([audio, visual], -1)
        for layer in (self.fc1, self.fc2, self.fc3):
            x = layer(x).relu()
        return attention, visual, self.fc4(x)

    def answer(self, words, audio, maps, negative):
        """Words (b, n), audio (b, t, d) after fc_a2, maps (b, t, d, p) -> all that has a name."""
        question = self.question_encoder(words)
        attention, visual, match = self.ground(audio, maps)
        asked = question[None]
        v = self.attn_v(asked, visual.transpose(0, 1), visual.transpose(0, 1))[0][0]
        v = self.norm1(v + self.linear12(self.linear11(v).relu()))
        a = self.attn_a(asked, audio.transpose(0, 1), audio.transpose(0, 1))[0][0]
        a = self.norm2(a + self.linear22(self.linear21(a).relu()))
        fused = torch.cat([a + audio.mean(1), v + visual.mean(1)], -1)
        fused = self.fc_fusion(torch.tanh(fused))
        return {
            'question': question,
            'positive.attention': attention,
            'positive.visual': visual,
            'positive.match': match,
            'negative.match': self.ground(audio, negative)[2],
            'attended_visual': v,
            'attended_audio': a,
            'fused': fused,
            'logits': self.fc_ans(torch.tanh(fused * question)),
        }
