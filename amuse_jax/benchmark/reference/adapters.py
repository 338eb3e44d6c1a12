"""Cross-modal adapters between the three towers (paper 3.1, Eq. 1-3)."""

from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from amuse_jax.benchmark.reference.attention import attend


class Projected(NamedTuple):
    """One modality's tokens at the adapters' width; each (B, ..., n, d)."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    own: torch.Tensor


class ModalityAdapter(nn.Module):
    """What the adapters hold for one modality; its sources are the two others."""

    def __init__(self, width_in: int, sizes: ConfigDict):
        super().__init__()
        width, hidden, self.heads = sizes.width, sizes.mlp_width, sizes.heads
        self.norm = nn.LayerNorm(width_in)
        self.project_in = nn.Linear(width_in, 4 * width)
        self.hidden = nn.ModuleList([nn.Linear(width, hidden) for _ in range(2)])
        self.attended = nn.ModuleList([nn.Linear(hidden, width) for _ in range(2)])
        self.fuse_query = nn.Linear(width, width)
        self.fuse_key_value = nn.Linear(width, 2 * width)
        self.project_out = nn.Linear(width, width_in)

    def project(self, tokens: torch.Tensor) -> Projected:
        """(B, ..., n, width_in) -> Eq. 1's query, key and value, and 4.1's 1x1 convolution."""
        return Projected(*self.project_in(self.norm(tokens)).chunk(4, dim=-1))

    def forward(
        self, tokens: torch.Tensor, own: torch.Tensor, attended: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Eq. 2 and 3: what was attended to is transformed and fused into the tokens.

        Args:
          tokens: (B, ..., n, width_in).
          own, attended: (B, ..., n, d).
        """
        layers = zip(self.hidden, self.attended, attended)
        transformed = [outer(functional.relu(inner(x))) for inner, outer, x in layers]
        candidates = torch.stack([own, *transformed], dim=-2)  # (..., n, 3, d)
        key, value = self.fuse_key_value(candidates).chunk(2, dim=-1)
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)) for x in (self.fuse_query(own), key, value)
        )
        scores = (query[..., None, :, :] * key).sum(-1) * query.shape[-1] ** -0.5
        fused = (scores.softmax(-2)[..., None] * value).sum(-3)  # (..., n, heads, c)
        return tokens + self.project_out(fused.flatten(-2))


class Adapters(nn.Module):
    """The six directed pairs between video, audio and text after a round."""

    def __init__(self, visual: int, audio: int, text: int, sizes: ConfigDict):
        super().__init__()
        self.heads = sizes.heads
        self.visual, self.audio, self.text = (
            ModalityAdapter(width, sizes) for width in (visual, audio, text)
        )

    def forward(
        self,
        visual: torch.Tensor,
        audio: torch.Tensor,
        text: torch.Tensor,
        word_mask: torch.Tensor,
        segment_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Exchanges tokens between the modalities.

        Args:
          visual: (B, T, n_v, d_v).
          audio: (B, T, n_a, d_a).
          text: (B, N, d_t).
          word_mask: (B, N) bool.
          segment_mask: (B, T) bool.
        """
        v, a, words = (
            self.visual.project(visual),
            self.audio.project(audio),
            self.text.project(text),
        )
        return (
            self.visual(visual, v.own, (self._beside(v, a), self._words(v, words, word_mask))),
            self.audio(audio, a.own, (self._beside(a, v), self._words(a, words, word_mask))),
            self.text(
                text,
                words.own,
                (self._segments(words, v, segment_mask), self._segments(words, a, segment_mask)),
            ),
        )

    def _beside(self, tokens: Projected, source: Projected) -> torch.Tensor:
        """Attention to the other modality's tokens of the same segment."""
        query, key, value = (
            x.flatten(0, 1) for x in (tokens.query, source.key, source.value)
        )  # (B * T, n, d)
        return attend(query, key, value, self.heads).unflatten(0, tokens.own.shape[:2])

    def _words(self, tokens: Projected, words: Projected, mask: torch.Tensor) -> torch.Tensor:
        query = tokens.query.flatten(1, 2)  # (B, T * n, d)
        found = attend(query, words.key, words.value, self.heads, mask)
        return found.unflatten(1, tokens.own.shape[1:3])

    def _segments(self, words: Projected, source: Projected, mask: torch.Tensor) -> torch.Tensor:
        """Words attend to the tokens of all segments."""
        key, value = source.key.flatten(1, 2), source.value.flatten(1, 2)
        mask = mask.repeat_interleave(source.key.shape[2], dim=1)
        return attend(words.query, key, value, self.heads, mask)
