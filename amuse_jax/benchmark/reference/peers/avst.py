"""AVST's two public classes: `AVQA_Fusion_Net`, and `AVQA_AVatt_Grounding` of its first stage."""

import torch

from amuse_jax.benchmark.reference.peers import parts
from amuse_jax.benchmark.reference.peers.parts import Tensors
from amuse_jax.models.peers.avst import AVSTConfig


class AVST(parts.Head):
    """`AVQA_Fusion_Net`, without the ResNet-18 that it stores and never calls."""

    def __init__(self, config: AVSTConfig):
        super().__init__(config.head, config.audio_width)

    def forward(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Answer questions.

        Args:
          inputs: `question` (b, n) word ids, `audio` (b, t, a), `visual` (b, t, d, h, w), and
            `negative` as `visual`, which may be left out.

        Returns:
          See Head.answer.
        """
        audio = self.fc_a2(self.fc_a1(inputs['audio']).relu())
        negative = inputs.get('negative')
        negative = None if negative is None else negative.flatten(3)
        return self.answer(inputs['question'], audio, inputs['visual'].flatten(3), negative)


class AVSTGrounding(parts.Grounding):
    """`AVQA_AVatt_Grounding` on maps."""

    def __init__(self, config: AVSTConfig):
        super().__init__(config.head, config.audio_width)

    def forward(self, inputs: Tensors) -> list[torch.Tensor]:
        """Return attention (b, h * w), visual (b, d) and match (b, 2).

        Args:
          inputs: `audio` (b, a) and `visual` (b, d, h, w).
        """
        audio = self.fc_a2(self.fc_a1(inputs['audio']).relu())[:, None]
        return [x[:, 0] for x in self.ground(audio, inputs['visual'].flatten(2)[:, None])]
