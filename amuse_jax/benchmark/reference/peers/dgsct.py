"""DG-SCT's public class for MUSIC-AVQA, around timm's Swin-V2 and the released HTS-AT."""

import torch
from torch import nn

from amuse_jax.benchmark.reference.peers import htsat, lavish, parts, swin
from amuse_jax.benchmark.reference.peers.parts import Tensors
from amuse_jax.models.peers.dgsct import DGSCTConfig
from amuse_jax.models.peers.dual_guided_adapter import AdapterConfig
from amuse_jax.models.peers.lavish import AdapterConfig as BottleneckConfig


class Adapter(lavish.Adapter):
    """`VisualAdapter`: LAVISH's, guided by the other stream over channels and positions.

    Args:
      own, other: number of tokens and channels of each stream.
      config: sizes and factors.
      has_gate: whether what the adapter returns has a gate.
    """

    def __init__(
        self,
        own: tuple[int, int],
        other: tuple[int, int],
        config: AdapterConfig,
        has_gate: bool,
    ):
        (tokens, width), (other_tokens, other_width) = own, other
        sizes = BottleneckConfig(config.latents, config.reduction, config.groups)
        super().__init__(width, sizes, has_gate)
        self.config = config
        self.conv_adapter = nn.Conv2d(other_tokens, tokens, 1)
        self.fc = nn.Linear(other_width, width)
        self.fc_affine_audio_1, self.fc_affine_video_1 = (nn.Linear(width, width) for _ in '12')
        self.fc_affine_bottleneck = nn.Linear(width, width // 2)
        self.fc_affine_video_2 = nn.Linear(width, width // 2)
        self.fc_affine_audio_2 = nn.Linear(width, width // 2)
        self.fc_affine_v_s_att = nn.Linear(width // 2, 1)
        self.fc_affine_v_c_att = nn.Linear(width // 2, width)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, n, d), (b, m, c) -> what is added to own tokens (b, n, d), weights of them (b, n)."""
        config = self.config
        other = self.fc(self.conv_adapter(other[..., None])[..., 0])
        x = self.gather(x, other)
        u = other.mean(1, keepdim=True)
        m = (self.fc_affine_audio_1(u).relu() * self.fc_affine_video_1(x).relu()).mean(1, True)
        channel = self.fc_affine_v_c_att(self.fc_affine_bottleneck(m).relu()).sigmoid()
        h = self.fc_affine_video_2(x * (channel + 1)).relu() * self.fc_affine_audio_2(u).relu()
        h = self.fc_affine_v_s_att(h)
        x = x * (config.alpha * channel + config.beta * h.sigmoid() + config.base)
        return self.squeeze(x), torch.tanh(h)[..., 0].softmax(-1)


class DGSCT(parts.Head):
    """Two frozen towers; each audio block is paired with a visual block by four adapters."""

    def __init__(self, config: DGSCTConfig):
        super().__init__(config.head, 8 * config.audio.width)
        self.swin, self.htsat = swin.Swin(config.visual), htsat.HTSAT(config.audio)
        positions = []
        for i, depth in enumerate(config.audio.depths):
            visual, audio = (
                ((tower.image_size // tower.patch >> i) ** 2, tower.width << i)
                for tower in (config.visual, config.audio)
            )
            positions += [(visual, audio)] * depth
        sizes, has_gate = config.adapter, config.adapter.audio_gate
        for half in ('p1', 'p2'):
            vis = nn.ModuleList(Adapter(v, a, sizes, True) for v, a in positions)
            audio = nn.ModuleList(Adapter(a, v, sizes, has_gate) for v, a in positions)
            setattr(self, f'vis_adapter_blocks_{half}', vis)
            setattr(self, f'audio_adapter_blocks_{half}', audio)

    def forward(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Answer questions.

        Args:
          inputs: `question` (b, n) word ids, `frames` (b, t, 3, s, s), `audio` (b, t, frames, mels)
            in dB, and `negative` as `frames`, which may be left out.

        Returns:
          See Head.answer.
        """
        _, _, maps, audio = self.encode(inputs)
        negative = inputs.get('negative')
        if negative is not None:
            tokens = self.swin.frozen_tokens(negative.flatten(0, 1))
            negative = tokens.unflatten(0, (len(maps), -1)).mT
        return self.answer(inputs['question'], audio, maps.mT, negative)

    def encode(self, inputs: Tensors) -> tuple[list, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run both towers.

        Returns:
          The tokens of both streams after each stage, the weights of the last audio tokens, and
          what the head takes: maps (b, t, p, d) and audio vectors (b, t, d).
        """
        batch = len(inputs['frames'])
        v = self.swin.embed(inputs['frames'].flatten(0, 1))
        a = self.htsat.embed(self.htsat.normalise(inputs['audio'].flatten(0, 1)))
        stages, place = [], 0
        for i, (visual, audio) in enumerate(zip(self.swin.layers, self.htsat.layers)):
            v = swin.enter(visual, v)
            a = self.htsat.layers[i - 1].downsample(a) if i else a
            share = len(visual.blocks) // len(audio.blocks)
            for j, block in enumerate(visual.blocks):
                if (j + 1) % share:
                    v = v + swin.attend(block, v)
                    v = v + swin.transform(block, v)
                    continue
                v, a, attention = self._run_pair(block, audio.blocks[j // share], place, v, a)
                place += 1
            stages.append((v, a))
        maps = self.swin.norm(v).unflatten(0, (batch, -1))
        a = (attention[:, None] @ a)[:, 0].unflatten(0, (batch, -1))
        return stages, attention, maps, self.fc_a2(self.fc_a1(a).relu())

    def _run_pair(
        self,
        visual: nn.Module,
        audio: nn.Module,
        place: int,
        v: torch.Tensor,
        a: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run a visual and an audio block with their adapters; return the last weights too."""
        to_a = self.audio_adapter_blocks_p1[place](a, v)[0]
        to_v = self.vis_adapter_blocks_p1[place](v, a)[0]
        v = v + swin.attend(visual, v) + to_v
        a = audio(a) + to_a
        to_a, attention = self.audio_adapter_blocks_p2[place](a, v)
        to_v = self.vis_adapter_blocks_p2[place](v, a)[0]
        return v + swin.transform(visual, v) + to_v, a + to_a, attention


def soften(model: DGSCT) -> DGSCT:
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
