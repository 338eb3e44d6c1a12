"""The source encoder's predictions as tokens, one for each instrument (paper 3.2, Fig. 2b)."""

import torch
from torch import nn
from torch.nn import functional

PLACES = 5  # places in the order of onsets and in the order of ends: first to fifth
SOFTNESS = 0.25  # of the comparison of two onsets, in segments


class SourceTimeline(nn.Module):
    """Embeds source frequencies (B, T, I): a token per instrument, and one for all of them."""

    def __init__(self, segments: int, feature_size: int, width: int):
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(10.0))
        self.threshold = nn.Parameter(torch.tensor(0.3))
        self.feature_norm = nn.LayerNorm(feature_size)
        self.feature = nn.Linear(feature_size, width, bias=False)
        self.own = nn.Linear(width, width)
        self.hidden = nn.Linear(2 * segments + 2 * PLACES + 7, width)
        self.token = nn.Linear(width, width)
        self.before = nn.Linear(width, width, bias=False)
        self.after = nn.Linear(width, width, bias=False)
        self.together = nn.Linear(width, width, bias=False)
        self.kinds = nn.Linear(width, width)
        self.all = nn.Linear(width, width)

    def forward(
        self,
        sources: torch.Tensor,
        features: torch.Tensor,
        segment_mask: torch.Tensor,
        names: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed the timelines.

        Args:
          sources: (B, T, I), the predicted frequencies.
          features: (B, T, D), the features of the source-audio stream.
          segment_mask: (B, T) bool, True for segments that exist.
          names: (I, d), the names of the instruments.

        Returns:
          Tokens (B, I + 1, d) and the activity of each instrument (B, T, I).
        """
        exists = segment_mask[..., None]
        sources = sources.float().masked_fill(~exists, 0)
        active = torch.sigmoid(self.sharpness * (sources - self.threshold)) * exists
        description, before, after, together = self._describe(sources, active, exists)

        share = active / (active.sum(1, keepdim=True) + 1e-3)
        sound = share.mT @ self.feature(self.feature_norm(features))
        hidden = functional.relu(self.hidden(description) + sound * self.own(names))
        tokens = (
            active.amax(1)[..., None] * names
            + self.token(hidden)
            + self.before(before @ names)
            + self.after(after @ names)
            + self.together(together @ names)
        )
        everything = self.all(functional.relu(self.kinds(hidden)).sum(1, keepdim=True))
        return torch.cat([tokens, everything], dim=1), active

    def _describe(self, sources: torch.Tensor, active: torch.Tensor, exists: torch.Tensor):
        """Return a description of each instrument (B, I, S) and three weights (B, I, I).

        The weights are those of the instruments before, after and together with each instrument.
        """
        segments = exists.sum(1).clamp(min=1)  # (B, 1)
        present, least = active.amax(1), active.masked_fill(~exists, 1).amin(1)
        filled = active * sources.clamp(0, 1)
        onset, is_before = onset_order(filled, present)
        end, is_after = onset_order(filled.flip(1), present)
        overlap = torch.minimum(active[..., None], active[:, :, None]).sum(1)
        overlap = overlap * (1 - torch.eye(active.shape[-1], device=active.device))
        places = torch.arange(PLACES, device=active.device)
        ranks = [
            torch.exp(-2 * (order.sum(-1, keepdim=True) - places) ** 2) * present[..., None]
            for order in (is_before, is_after)
        ]
        numbers = (
            filled.sum(1) / segments, active.sum(1) / segments, least, present,
            onset / segments, end / segments, overlap.sum(-1) / segments,
        )  # fmt: skip
        description = torch.cat([sources.mT, active.mT, torch.stack(numbers, -1), *ranks], dim=-1)
        gap = torch.exp(-(onset[:, :, None] - onset[:, None]).abs())
        # An instrument begins after i if i begins before it.
        is_later = is_before.mT * present[:, None]
        weights = [is_before * gap, is_later * gap, overlap]
        return description, *(x / (x.sum(-1, keepdim=True) + 0.05) for x in weights)


def onset_order(activity: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the onset of each instrument (B, I), and which ones begin before it (B, I, I).

    An onset is the number of segments before the instrument begins.
    """
    onset = (1 - activity).cumprod(1).sum(1)
    is_before = torch.sigmoid((onset[:, :, None] - onset[:, None]) / SOFTNESS) * present[:, None]
    return onset, is_before * (1 - torch.eye(onset.shape[-1], device=onset.device))
