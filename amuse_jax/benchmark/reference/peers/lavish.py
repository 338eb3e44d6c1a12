"""LAVISH's public class for MUSIC-AVQA, around timm's Swin-V2."""

import torch
from torch import nn

from amuse_jax.benchmark.reference.peers import parts, swin
from amuse_jax.benchmark.reference.peers.parts import Tensors
from amuse_jax.models.peers.lavish import AdapterConfig, LAVISHConfig


class Adapter(nn.Module):
    """`VisualAdapter`: what one stream takes from the other."""

    def __init__(self, width: int, config: AdapterConfig, has_gate: bool):
        super().__init__()
        hidden, groups = width // config.reduction, config.groups
        if has_gate:
            self.gate = nn.Parameter(torch.zeros(1))
        self.my_tokens = nn.Parameter(torch.zeros(config.latents, width))
        self.gate_av = nn.Parameter(torch.zeros(1))
        self.down_sampler = nn.Conv2d(width, hidden, 1, groups=groups, bias=False)
        self.up_sampler = nn.Conv2d(hidden, width, 1, groups=groups, bias=False)
        if config.batch_norm:
            self.bn1, self.bn2 = nn.BatchNorm2d(hidden), nn.BatchNorm2d(width)
        self.ln_before, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Own tokens (b, n, d), tokens (b, m, d) of the other stream -> (b, n, d)."""
        return self.squeeze(self.gather(x, other))

    def gather(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Add to own tokens what the learned tokens gather from the other stream."""
        tokens = self.my_tokens.expand(len(x), -1, -1)
        tokens = tokens + (tokens @ other.mT).softmax(-1) @ other
        return x + self.gate_av * (x @ tokens.mT).softmax(-1) @ tokens

    def squeeze(self, x: torch.Tensor) -> torch.Tensor:
        """Run the bottleneck: (b, n, d) -> (b, n, d)."""
        x = self.ln_before(x).mT[..., None]  # (b, d, n, 1)
        x = self.down_sampler(x)
        x = self.bn1(x) if hasattr(self, 'bn1') else x
        x = self.up_sampler(x.relu())
        x = self.bn2(x) if hasattr(self, 'bn2') else x
        x = self.ln_post(x[..., 0].mT)
        return self.gate * x if hasattr(self, 'gate') else x


class LAVISH(parts.Head):
    """One frozen tower for frames and spectrograms, with four adapters at each block."""

    def __init__(self, config: LAVISHConfig):
        super().__init__(config.head, audio_width=0)  # its forward skips fc_a1
        tower, adapter = config.swin, config.adapter
        self.swin = swin.Swin(tower)
        widths = [tower.width * 2**i for i, depth in enumerate(tower.depths) for _ in range(depth)]
        for stream in ('audio', 'vis'):
            has_gate = stream == 'vis' or adapter.audio_gate
            for half in ('p1', 'p2'):
                blocks = nn.ModuleList(Adapter(width, adapter, has_gate) for width in widths)
                setattr(self, f'{stream}_adapter_blocks_{half}', blocks)
        self.yb_fc_v = nn.Linear(widths[-1], config.head.width)
        self.yb_fc_a = nn.Linear(widths[-1], config.head.width)

    def forward(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Answer questions.

        Args:
          inputs: `question` (b, n) word ids, `frames` (b, t, 3, s, s), `audio` (b, t, s, s), and
            `negative` as `frames`, which may be left out.

        Returns:
          See Head.answer.
        """
        _, maps, sound = self.encode(inputs)
        audio = self.fc_a2(sound.mean(2).relu())
        negative = inputs.get('negative')
        if negative is not None:
            negative = self.yb_fc_v(self.swin.frozen_tokens(negative.flatten(0, 1)))
            negative = negative.unflatten(0, (len(maps), -1)).mT
        return self.answer(inputs['question'], audio, maps.mT, negative)

    def encode(self, inputs: Tensors) -> tuple[list, torch.Tensor, torch.Tensor]:
        """Return the tokens of both streams after each stage, and the head's (b, t, p, d) twice."""
        frames, sound = inputs['frames'], inputs['audio']
        v = self.swin.embed(frames.flatten(0, 1))
        a = self.swin.embed(sound.flatten(0, 1)[:, None].expand(-1, 3, -1, -1))
        stages, place = [], 0
        for stage in self.swin.layers:
            v, a = swin.enter(stage, v), swin.enter(stage, a)
            for block in stage.blocks:
                v, a = self._run_block(block, place, v, a)
                place += 1
            stages.append((v, a))
        maps = self.yb_fc_v(self.swin.norm(v)).unflatten(0, (len(frames), -1))
        return stages, maps, self.yb_fc_a(self.swin.norm(a)).unflatten(0, (len(frames), -1))

    def _run_block(self, block: nn.Module, place: int, v: torch.Tensor, a: torch.Tensor):
        """Run one block on both streams (b, n, d), with its adapters beside its two halves."""
        to_a = self.audio_adapter_blocks_p1[place](a, v)
        to_v = self.vis_adapter_blocks_p1[place](v, a)
        v, a = v + swin.attend(block, v) + to_v, a + swin.attend(block, a) + to_a
        to_a = self.audio_adapter_blocks_p2[place](a, v)
        to_v = self.vis_adapter_blocks_p2[place](v, a)
        return v + swin.transform(block, v) + to_v, a + swin.transform(block, a) + to_a
