"""The universal encoder: rhythm and source encoders over time (3.2, Fig. 3, Eq. 7-10)."""

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from amuse_jax.benchmark.reference import towers
from amuse_jax.music_avqa import vocabulary

STREAMS = ('rhythm_visual', 'rhythm_audio', 'source_visual', 'source_audio')


class Predictor(nn.Module):
    """Three linear layers with ReLU between them (Eq. 9) on normed features."""

    def __init__(self, width_in: int, width: int, width_out: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width_in)
        self.first = nn.Linear(width_in, width)
        self.second = nn.Linear(width, width)
        self.third = nn.Linear(width, width_out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Predict (B, T, width_out) from features (B, T, d)."""
        x = self.norm(features.transpose(1, 2)).transpose(1, 2)
        return self.third(functional.relu(self.second(functional.relu(self.first(x)))))


class TowerPair(nn.Module):
    """A Swin-V2 and an HTS-AT with average pooling (Eq. 7, 8)."""

    def __init__(self, config: ConfigDict, seed: int):
        super().__init__()
        self.visual, self.audio = (
            towers.build(config, part, seed=seed) for part in ('visual', 'audio')
        )

    def forward(
        self, frames: torch.Tensor, log_mel: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode each segment.

        Args:
          frames: (B, T, S, S, 3) uint8 RGB.
          log_mel: (B, T, F, mels) in dB.

        Returns:
          Pooled visual (B, T, d_v) and audio (B, T, d_a) features.
        """
        lead = frames.shape[:2]
        visual = self.visual.pooled(frames.flatten(0, 1))
        audio = self.audio.pooled(log_mel.flatten(0, 1))
        return visual.unflatten(0, lead), audio.unflatten(0, lead)


class UniversalEncoder(nn.Module):
    """The rhythm encoder and the source encoder, frozen."""

    def __init__(self, config: ConfigDict):
        super().__init__()
        self.pairs = nn.ModuleList([TowerPair(config, seed) for seed in (1, 2)])  # rhythm, source
        width = 8 * (config.model.visual.width + config.model.audio.width)
        hidden = config.pretrain.predictor_width
        self.rhythm_predictor = Predictor(2 * width, hidden, 1)
        self.source_predictor = Predictor(width, hidden, len(vocabulary.INSTRUMENTS))

    def forward(self, frames: torch.Tensor, log_mel: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the four streams (B, T, d) by name, 'rhythm' (B, T) and 'sources' (B, T, I)."""
        streams = [stream for pair in self.pairs for stream in pair(frames, log_mel)]
        rhythm = self.rhythm_predictor(torch.cat([with_next(x) for x in streams[:2]], dim=-1))
        sources = self.source_predictor(torch.cat(streams[2:], dim=-1))
        return dict(zip(STREAMS, streams)) | {'rhythm': rhythm[..., 0], 'sources': sources}


def with_next(features: torch.Tensor) -> torch.Tensor:
    """Append the next segment's features to each segment's: (B, T, d) to (B, T, 2d) (Eq. 6).

    The last segment's features are appended to themselves.
    """
    return torch.cat([features, torch.cat([features[:, 1:], features[:, -1:]], dim=1)], dim=-1)
