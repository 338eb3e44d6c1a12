"""PSTP-Net in plain PyTorch, written from its description, with the names of the public class.

`released` is what the released forward computes; `repaired` uses the four modules.
"""

import torch
from torch import nn

from tests.models.peers import reference_parts


def attention(width, heads):
    return nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)


class Layer(nn.Module):
    """The layer of both global modules."""

    def __init__(self, width):
        super().__init__()
        self.self_attn, self.cm_attn = attention(width, 1), attention(width, 1)
        self.linear1, self.linear2 = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x, other=None):
        total = x + self.self_attn(x, x, x)[0]
        if other is not None:
            total = total + self.cm_attn(x, other, other)[0]
        x = self.norm1(total)
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class Query(nn.Module):
    """Attention of a query, and the MLP after it, under the names `<kind>_query_...`."""

    def __init__(self, width, kind):
        super().__init__()
        self.kind = kind
        setattr(self, f'attn_{kind}_query', attention(width, 4))
        for name in ('linear1', 'linear2'):
            setattr(self, f'{kind}_query_{name}', nn.Linear(width, width))
        setattr(self, f'{kind}_query_visual_norm', nn.LayerNorm(width))

    def forward(self, query, memory):
        """(b, 1, d), (b, n, d) -> (b, d), (b, n)."""
        x, weights = getattr(self, f'attn_{self.kind}_query')(query, memory, memory)
        linear1, linear2, norm = (
            getattr(self, f'{self.kind}_query_{name}')
            for name in ('linear1', 'linear2', 'visual_norm')
        )
        return norm(x + linear2(linear1(x).relu()))[:, 0], weights[:, 0]


class Layers(nn.Module):
    def __init__(self, width, *norms):
        super().__init__()
        self.layers = nn.ModuleList([Layer(width)])
        for name in norms:
            setattr(self, name, nn.LayerNorm(width))


class PSTP(nn.Module):
    def __init__(self, width=512, audio_width=128, clip_width=512, answers=42, vocabulary=0):
        super().__init__()
        d = width
        self.fc_a, self.fc_v = nn.Linear(audio_width, d), nn.Linear(clip_width, d)
        self.fc_p, self.fc_word = nn.Linear(clip_width, d), nn.Linear(clip_width, d)
        self.fc_q = (
            reference_parts.QuestionEncoder(vocabulary, d)
            if vocabulary
            else nn.Linear(clip_width, d)
        )
        self.fc_spat_q = nn.Linear(d, d)
        self.TempSegsSelect_Module = Query(d, 'qst')
        self.TempSegsSelect_Module.clip_attn = Layer(d)
        self.TempSegsSelect_Module.clip_fc = nn.Linear(2 * d, d)
        self.SpatRegsSelect_Module = Query(d, 'qst')
        self.SpatRegsSelect_Module.patch_fc = nn.Linear(d, d)
        self.AudioGuidedVisualAttn = Query(d, 'audio')
        self.GlobalLocal_Module = Layers(d, 'norm1', 'norm2')
        self.GlobalSelf_Module = Layers(d, 'norm2')
        self.audio_fusion, self.visual_fusion = nn.Linear(d, d), nn.Linear(d, d)
        self.SM_fusion, self.fc_av_fusion = nn.Linear(2 * d, d), nn.Linear(2 * d, d)
        self.fc_answer_pred = nn.Linear(d, answers)

    def answer(self, tokens, question):
        tokens = self.GlobalSelf_Module.layers[0](torch.cat(tokens, 1))
        logits = self.fc_answer_pred(torch.tanh(tokens.mean(1) * question))
        return {'question': question, 'tokens': tokens, 'logits': logits}

    def released(self, x):
        question = self.fc_q(x['question'])
        tokens = [self.fc_a(x['audio']), self.fc_v(x['frames']), self.fc_word(x['words'])]
        return self.answer(tokens, question)

    def repaired(self, x, segments, top_segments, top_patches):
        """One question after the other, without any indexing across the batch."""
        outputs = [
            self._repaired_one({name: each[i : i + 1] for name, each in x.items()}, segments,
                               top_segments, top_patches)
            for i in range(len(x['question']))
        ]  # fmt: skip
        return {name: torch.cat([one[name] for one in outputs]) for name in outputs[0]}

    def _repaired_one(self, x, segments, top_segments, top_patches):
        q = self.fc_q(x['question'])
        a, v = self.fc_a(x['audio']), self.fc_v(x['frames'])
        words, patches = self.fc_word(x['words']), self.fc_p(x['patches'])
        length = a.shape[1] // segments
        means = torch.cat([each.unflatten(1, (segments, length)).mean(2) for each in (a, v)], -1)
        temporal = self.TempSegsSelect_Module
        _, weights = temporal(q[:, None], temporal.clip_fc(torch.tanh(means)))
        chosen = sorted(weights[0].topk(top_segments).indices.tolist())
        seconds = [segment * length + i for segment in chosen for i in range(length)]
        picked, heard, places, all_weights = [], [], [], []
        for second in seconds:
            frame = patches[:, second]
            _, patch_weights = self.SpatRegsSelect_Module(q[:, None], frame)
            best = sorted(patch_weights[0].topk(top_patches).indices.tolist())
            picked.append(frame[:, best])
            heard.append(self.AudioGuidedVisualAttn(a[:, second, None], frame[:, best])[0])
            places.append(best)
            all_weights.append(patch_weights)
        heard = torch.stack(heard, 1)
        layer = self.GlobalLocal_Module.layers[0]
        exchanged_a = layer(a, v)
        exchanged_v = layer(v, exchanged_a)
        tokens = [
            a[:, seconds],
            exchanged_a,
            a,
            v[:, seconds],
            *picked,
            heard,
            exchanged_v,
            v,
            words,
        ]
        return self.answer(tokens, q) | {
            'selection.seconds': torch.tensor([seconds]),
            'selection.patches': torch.tensor([places]),
            'selection.segment_weights': weights,
            'selection.patch_weights': torch.stack(all_weights, 1),
            'selection.heard': heard,
            'selection.audio': exchanged_a,
            'selection.visual': exchanged_v,
        }


def torch_inputs(inputs):
    return {
        name: torch.tensor(x).long() if x.dtype.kind == 'i' else torch.tensor(x)
        for name, x in inputs.items()
    }
