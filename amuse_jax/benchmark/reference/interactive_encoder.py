"""The interactive encoder: three towers with adapters between their layers (3.1, Fig. 2a)."""

import torch
from ml_collections import ConfigDict
from torch import nn

from amuse_jax.benchmark.reference import towers
from amuse_jax.benchmark.reference.adapters import Adapters


class InteractiveEncoder(nn.Module):
    """Swin-V2 for frames, HTS-AT for audio, BERT for words, and adapters after each round."""

    def __init__(self, config: ConfigDict, vocab_size: int):
        super().__init__()
        self.visual, self.audio, self.text = (
            towers.build(config, part, vocab_size) for part in towers.PARTS
        )
        model = config.model
        widths = 4 * model.visual.width, 4 * model.audio.width, model.text.width
        self.adapters = nn.ModuleList(
            [Adapters(*widths, model.adapters) for _ in range(model.adapters.rounds)]
        )

    def forward(
        self,
        frames: torch.Tensor,
        log_mel: torch.Tensor,
        words: torch.Tensor,
        word_mask: torch.Tensor,
        segment_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the towers and the adapters.

        Args:
          frames: (B, T, S, S, 3) uint8 RGB.
          log_mel: (B, T, F, mels) in dB.
          words: (B, N) token ids.
          word_mask: (B, N) bool, True for words.
          segment_mask: (B, T) bool, True for segments that exist.

        Returns:
          Pooled visual (B, T, d) and audio (B, T, d) features, and text tokens (B, N, d_t).
        """
        lead, rounds = frames.shape[:2], len(self.adapters)
        visual = self.visual.stem(frames.flatten(0, 1))
        audio = self.audio.stem(log_mel.flatten(0, 1))
        text = self.text.embeddings(words)
        for index, adapters in enumerate(self.adapters):
            visual = self.visual.run_round(visual, index, rounds).unflatten(0, lead)
            audio = self.audio.run_round(audio, index, rounds).unflatten(0, lead)
            text = self.text.run_round(text, word_mask, index, rounds)
            visual, audio, text = adapters(visual, audio, text, word_mask, segment_mask)
            visual, audio = visual.flatten(0, 1), audio.flatten(0, 1)
        return (
            self.visual.tail(visual).unflatten(0, lead),
            self.audio.tail(audio).unflatten(0, lead),
            text,
        )
