"""DG-SCT in plain PyTorch around timm's Swin-V2 and an HTS-AT, written from its description."""

import torch
from torch import nn

from tests.models.peers import reference_lavish, reference_parts
from tests.models.peers.reference_lavish import attend, enter
from tests.pretrained import original_htsat


class Adapter(reference_lavish.Adapter):
    def __init__(self, own, other, latents, reduction, groups, has_gate):
        (tokens, width), (other_tokens, other_width) = own, other
        super().__init__(width, latents, reduction, groups, has_gate, batch_norm=False)
        self.conv_adapter = nn.Conv2d(other_tokens, tokens, 1)
        self.fc = nn.Linear(other_width, width)
        self.fc_affine_audio_1, self.fc_affine_video_1 = (nn.Linear(width, width) for _ in '12')
        self.fc_affine_bottleneck = nn.Linear(width, width // 2)
        self.fc_affine_video_2 = nn.Linear(width, width // 2)
        self.fc_affine_audio_2 = nn.Linear(width, width // 2)
        self.fc_affine_v_s_att = nn.Linear(width // 2, 1)
        self.fc_affine_v_c_att = nn.Linear(width // 2, width)

    def forward(self, x, other):
        other = self.fc(self.conv_adapter(other[..., None])[..., 0])
        x = self.gather(x, other)
        u = other.mean(1, keepdim=True)
        m = (self.fc_affine_audio_1(u).relu() * self.fc_affine_video_1(x).relu()).mean(1, True)
        channel = self.fc_affine_v_c_att(self.fc_affine_bottleneck(m).relu()).sigmoid()
        h = self.fc_affine_video_2(x * (channel + 1)).relu() * self.fc_affine_audio_2(u).relu()
        h = self.fc_affine_v_s_att(h)
        x = x * (0.3 * channel + 0.05 * h.sigmoid() + 0.7)
        return self.squeeze(x), torch.tanh(h)[..., 0].softmax(-1)


class DGSCT(reference_parts.Head):
    def __init__(self, config):
        head, adapter = config.head, config.adapter
        audio_width = config.audio.width * 8
        super().__init__(
            head.width, audio_width, head.answers, head.vocabulary, head.match_widths, unused=False
        )
        self.swin = reference_lavish.swin(config.visual)
        arrays = original_htsat.draw(config.audio, classes=3, seed=3)
        for name, x in arrays.items():  # which are drawn for small widths
            if x.ndim > 1 and x.numel() and name.endswith('weight'):
                arrays[name] = x * min(1, 5 * x[0].numel() ** -0.5)
        self.htsat = original_htsat.Original(arrays, config.audio)
        positions = []
        for i, depth in enumerate(config.audio.depths):
            visual, audio = (
                ((side >> i) ** 2, tower.width * 2**i)
                for tower in (config.visual, config.audio)
                for side in [tower.image_size // tower.patch]
            )
            positions += [(visual, audio)] * depth
        sizes = adapter.latents, adapter.reduction, adapter.groups
        for half in ('p1', 'p2'):
            vis = nn.ModuleList(Adapter(v, a, *sizes, True) for v, a in positions)
            audio = nn.ModuleList(Adapter(a, v, *sizes, adapter.audio_gate) for v, a in positions)
            setattr(self, f'vis_adapter_blocks_{half}', vis)
            setattr(self, f'audio_adapter_blocks_{half}', audio)

    def state(self):
        """Return the state dict with timm 0.6's names and the arrays of the audio tower."""
        state = reference_lavish.old_names(reference_parts.state(self))
        return state | {f'htsat.{name}': x.numpy() for name, x in self.htsat.arrays.items()}

    def forward(self, frames, log_mel, negative, words):
        """(b, t, 3, s, s), (b, t, frames, mels), (b, t, 3, s, s), (b, 14) -> what has a name."""
        batch = len(frames)
        v = self.swin.patch_embed(frames.flatten(0, 1)).flatten(1, 2)
        a = self.htsat.embed(self.htsat.normalise(log_mel.flatten(0, 1)))
        named, place = {}, 0
        for i, layer in enumerate(self.swin.layers):
            v, a = enter(layer, v), self.htsat.merge(a, i - 1) if i else a
            share = len(layer.blocks) // self.htsat.config.depths[i]
            for j, block in enumerate(layer.blocks):
                if (j + 1) % share:
                    v = v + attend(block, v)
                    v = v + block.norm2(block.mlp(v))
                    continue
                to_a = self.audio_adapter_blocks_p1[place](a, v)[0]
                to_v = self.vis_adapter_blocks_p1[place](v, a)[0]
                v = v + attend(block, v) + to_v
                a = self.htsat.block(a, i, j // share) + to_a
                to_a, attention = self.audio_adapter_blocks_p2[place](a, v)
                to_v = self.vis_adapter_blocks_p2[place](v, a)[0]
                v, a = v + block.norm2(block.mlp(v)) + to_v, a + to_a
                place += 1
            named[f'stages.{i}'] = v, a
        maps = self.swin.norm(v).unflatten(0, (batch, -1))
        a = (attention[:, None] @ a)[:, 0].unflatten(0, (batch, -1))
        a = self.fc_a2(self.fc_a1(a).relu())
        with torch.no_grad():
            other = self.swin.forward_features(negative.flatten(0, 1)).flatten(1, 2)
        other = other.unflatten(0, (batch, -1))
        answer = self.answer(words, a, maps.mT, other.mT)
        return named, {
            'attention': attention,
            'visual': maps,
            'audio': a,
            **{f'head.{k}': x for k, x in answer.items()},
        }


def soften(model):
    """Make what the adapters exchange small; return the model.

    Their softmaxes have no scale: with random weights of unit scale at full width their logits
    reach thousands, where the rounding of float32 decides between two latents.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Adapter):
                for parameter in (module.fc.weight, module.fc.bias, module.my_tokens):
                    parameter.mul_(0.1)
    return model


def torch_inputs(inputs):
    """Return the arrays of an example in the layout of the public class, with log-mels."""
    frames, negative = (
        torch.tensor(inputs[name]).permute(0, 1, 4, 2, 3) for name in ('frames', 'negative')
    )
    return frames, torch.tensor(inputs['audio']), negative, torch.tensor(inputs['question']).long()
