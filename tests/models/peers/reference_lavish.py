"""LAVISH in plain PyTorch around timm's Swin-V2, written from its description."""

import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import nn

from tests.models.peers import reference_parts


def swin(config, classes=3):
    return SwinTransformerV2(
        img_size=config.image_size, patch_size=config.patch, num_classes=classes,
        embed_dim=config.width, depths=config.depths, num_heads=config.heads,
        window_size=config.window,
    )  # fmt: skip


def old_names(state):
    """Return a state dict with timm 0.6's names of the tower's merging layers and classifier."""
    renamed = {}
    for name, array in state.items():
        if '.downsample.' in name:
            stage = int(name.partition('layers.')[2].partition('.')[0])
            name = name.replace(f'layers.{stage}.', f'layers.{stage - 1}.')
        renamed[name.replace('swin.head.fc.', 'swin.head.')] = array
    return renamed


def attend(block, x):
    """(b, n, d) -> (b, n, d): norm1(attention(x)) of a block of timm."""
    y = block._attn(x.reshape(len(x), *block.input_resolution, -1))
    return block.norm1(y.reshape(x.shape))


def enter(layer, x):
    """Merge patches at the start of a stage."""
    if isinstance(layer.downsample, nn.Identity):
        return x
    side = int(x.shape[1] ** 0.5)
    return layer.downsample(x.reshape(len(x), side, side, -1)).flatten(1, 2)


class Adapter(nn.Module):
    def __init__(self, width, latents, reduction, groups, has_gate, batch_norm):
        super().__init__()
        hidden = width // reduction
        if has_gate:
            self.gate = nn.Parameter(torch.zeros(1))
        self.my_tokens = nn.Parameter(torch.zeros(latents, width))
        self.gate_av = nn.Parameter(torch.zeros(1))
        self.down_sampler = nn.Conv2d(width, hidden, 1, groups=groups, bias=False)
        self.up_sampler = nn.Conv2d(hidden, width, 1, groups=groups, bias=False)
        if batch_norm:
            self.bn1, self.bn2 = nn.BatchNorm2d(hidden), nn.BatchNorm2d(width)
        self.ln_before, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)

    def gather(self, x, other):
        tokens = self.my_tokens.expand(len(x), -1, -1)
        tokens = tokens + (tokens @ other.mT).softmax(-1) @ other
        return x + self.gate_av * (x @ tokens.mT).softmax(-1) @ tokens

    def squeeze(self, x):
        x = self.ln_before(x).mT[..., None]  # (b, d, n, 1)
        x = self.down_sampler(x)
        x = self.bn1(x) if hasattr(self, 'bn1') else x
        x = self.up_sampler(x.relu())
        x = self.bn2(x) if hasattr(self, 'bn2') else x
        x = self.ln_post(x[..., 0].mT)
        return self.gate * x if hasattr(self, 'gate') else x

    def forward(self, x, other):
        return self.squeeze(self.gather(x, other))


class LAVISH(reference_parts.Head):
    def __init__(self, config):
        head, adapter, tower = config.head, config.adapter, config.swin
        super().__init__(head.width, 128, head.answers, head.vocabulary, head.match_widths)
        self.swin = swin(tower)
        widths = [tower.width * 2**i for i, depth in enumerate(tower.depths) for _ in range(depth)]
        for stream in ('audio', 'vis'):
            has_gate = stream == 'vis' or adapter.audio_gate
            for half in ('p1', 'p2'):
                blocks = nn.ModuleList(
                    Adapter(width, adapter.latents, adapter.reduction, adapter.groups, has_gate,
                            adapter.batch_norm)
                    for width in widths
                )  # fmt: skip
                setattr(self, f'{stream}_adapter_blocks_{half}', blocks)
        self.yb_fc_v = nn.Linear(widths[-1], head.width)
        self.yb_fc_a = nn.Linear(widths[-1], head.width)

    def forward(self, frames, sound, negative, words):
        """(b, t, 3, s, s) three times, (b, 14) -> everything that has a name."""
        batch = len(frames)
        v, a = (self.swin.patch_embed(x.flatten(0, 1)).flatten(1, 2) for x in (frames, sound))
        named, place = {}, 0
        for i, layer in enumerate(self.swin.layers):
            v, a = enter(layer, v), enter(layer, a)
            for block in layer.blocks:
                to_a = self.audio_adapter_blocks_p1[place](a, v)
                to_v = self.vis_adapter_blocks_p1[place](v, a)
                v, a = v + attend(block, v) + to_v, a + attend(block, a) + to_a
                to_a = self.audio_adapter_blocks_p2[place](a, v)
                to_v = self.vis_adapter_blocks_p2[place](v, a)
                v = v + block.norm2(block.mlp(v)) + to_v
                a = a + block.norm2(block.mlp(a)) + to_a
                place += 1
            named[f'stages.{i}'] = v, a
        maps = self.yb_fc_v(self.swin.norm(v)).unflatten(0, (batch, -1))
        sound = self.yb_fc_a(self.swin.norm(a)).unflatten(0, (batch, -1))
        a = self.fc_a2(sound.mean(2).relu())
        with torch.no_grad():
            other = self.swin.forward_features(negative.flatten(0, 1)).flatten(1, 2)
        other = self.yb_fc_v(other).unflatten(0, (batch, -1))
        answer = self.answer(words, a, maps.mT, other.mT)
        return named, {
            'streams.visual': maps,
            'streams.audio': sound,
            **{f'head.{name}': x for name, x in answer.items()},
        }


def torch_inputs(inputs):
    """Return the arrays of an example in the layout of the public class."""
    frames, negative = (
        torch.tensor(inputs[n]).permute(0, 1, 4, 2, 3) for n in ('frames', 'negative')
    )
    sound = torch.tensor(inputs['audio'])[:, :, None].expand_as(frames)
    return frames, sound, negative, torch.tensor(inputs['question']).long()
