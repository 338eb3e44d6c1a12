"""Cross-modal adapters between the three towers (paper 3.1, Eq. 1-3)."""

from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from amuse_jax.benchmark.reference.attention import attend, repeat_videos


class Projected(NamedTuple):
    """The tokens of one modality, projected to the adapters' width; each (B, ..., n, d)."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    own: torch.Tensor


class ModalityAdapter(nn.Module):
    """The adapters' layers for one modality, which attends to the two other modalities."""

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
        """Project tokens (B, ..., n, width_in) to Eq. 1's query, key and value.

        The fourth output is the 1x1 convolution of section 4.1.
        """
        return Projected(*self.project_in(self.norm(tokens)).chunk(4, dim=-1))

    def forward(
        self, tokens: torch.Tensor, own: torch.Tensor, attended: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """Transform the attended tokens (Eq. 2) and fuse them into the tokens (Eq. 3).

        Args:
          tokens: (B or V, ..., n, width_in), the modality's tokens.
          own: (B or V, ..., n, d), the same tokens at the adapters' width.
          attended: (B or V, ..., n, d) each, the results of the attention to the two other
            modalities.

        Returns:
          The new tokens (B, ..., n, width_in).
        """
        layers = zip(self.hidden, self.attended, attended)
        transformed = [outer(functional.relu(inner(x))) for inner, outer, x in layers]
        rows = max(map(len, attended))
        candidates = [repeat_videos(self.fuse_key_value(x), rows) for x in (own, *transformed)]
        key, value = torch.stack(candidates, dim=-2).chunk(2, dim=-1)  # each (..., n, 3, d)
        query = repeat_videos(self.fuse_query(own), rows)
        query, key, value = (x.unflatten(-1, (self.heads, -1)) for x in (query, key, value))
        scores = (query[..., None, :, :] * key).sum(-1) * query.shape[-1] ** -0.5
        fused = (scores.softmax(-2)[..., None] * value).sum(-3)  # (..., n, heads, c)
        return repeat_videos(tokens, rows) + self.project_out(fused.flatten(-2))


class Adapters(nn.Module):
    """The adapters after one round: six directed pairs of video, audio and text."""

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
        """Exchange information between the modalities.

        Args:
          visual: (B or V, T, n_v, d_v) tokens; those of V videos are shared by their questions.
          audio: (B or V, T, n_a, d_a) tokens.
          text: (B, N, d_t) tokens.
          word_mask: (B, N) bool, True for words.
          segment_mask: (V, T) bool, True for segments that exist.

        Returns:
          The visual, audio and text tokens of all B questions.
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
        """Attend to the other modality's tokens in the same segment."""
        query, key, value = (
            x.flatten(0, 1) for x in (tokens.query, source.key, source.value)
        )  # (B * T, n, d)
        return attend(query, key, value, self.heads).unflatten(0, tokens.own.shape[:2])

    def _words(self, tokens: Projected, words: Projected, mask: torch.Tensor) -> torch.Tensor:
        """Attend to the words."""
        query = repeat_videos(tokens.query.flatten(1, 2), len(words.key))  # (B, T * n, d)
        attended = attend(query, words.key, words.value, self.heads, mask)
        return attended.unflatten(1, tokens.own.shape[1:3])

    def _segments(self, words: Projected, source: Projected, mask: torch.Tensor) -> torch.Tensor:
        """Let the words attend to the tokens of all segments."""
        mask = mask.repeat_interleave(source.key.shape[2], dim=1)
        key, value, mask = (
            repeat_videos(x, len(words.query))
            for x in (source.key.flatten(1, 2), source.value.flatten(1, 2), mask)
        )
        return attend(words.query, key, value, self.heads, mask)
