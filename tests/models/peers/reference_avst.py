"""AVST in plain PyTorch, written from its description, with the names of the public classes."""

import torch
from torch import nn
from torchvision.models import resnet18

from tests.models.peers import reference_parts


class AVST(reference_parts.Head):
    """`AVQA_Fusion_Net`; `resnet` adds the ResNet-18 that it stores and never calls."""

    def __init__(self, width=512, audio_width=128, answers=42, vocabulary=93,
                 match=(512, 256, 128), resnet=False):  # fmt: skip
        super().__init__(width, audio_width, answers, vocabulary, match)
        if resnet:
            self.visual_net = resnet18(weights=None)
            self.visual_net.conv1_a = nn.Conv2d(1, 64, 7, bias=False)

    def forward(self, audio, maps, negative, words):
        """(b, t, 128), (b, t, d, h, w) twice, (b, 14) -> everything that has a name."""
        audio = self.fc_a2(self.fc_a1(audio).relu())
        return self.answer(words, audio, maps.flatten(3), negative.flatten(3))


class Grounding(nn.Module):
    """`AVQA_AVatt_Grounding` on maps."""

    def __init__(self, width=512, audio_width=128, match=(512, 256, 128)):
        super().__init__()
        whole = reference_parts.Head(width, audio_width, 2, 2, match)
        for name in ('fc_a1', 'fc_a2', 'fc_gl', 'fc1', 'fc2', 'fc3', 'fc4'):
            setattr(self, name, getattr(whole, name))

    def forward(self, audio, maps):
        """(b, 128), (b, d, h, w) -> attention (b, h * w), visual (b, d), match (b, 2)."""
        audio = self.fc_a2(self.fc_a1(audio).relu())[:, None]
        return [x[:, 0] for x in reference_parts.Head.ground(self, audio, maps.flatten(2)[:, None])]


def torch_inputs(inputs):
    """Return the arrays of an example in the layout and order of the public class."""
    maps = [torch.tensor(inputs[name]).permute(0, 1, 4, 2, 3) for name in ('visual', 'negative')]
    return torch.tensor(inputs['audio']), *maps, torch.tensor(inputs['question']).long()
