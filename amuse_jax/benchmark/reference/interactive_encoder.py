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

    def question_free(
        self, frames: torch.Tensor, log_mel: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all layers before the first adapters; they do not depend on the question.

        Args:
          frames: (V, T, S, S, 3) uint8 RGB.
          log_mel: (V, T, F, mels) in dB.

        Returns:
          Visual tokens (V, T, n_v, d_v) and audio tokens (V, T, n_a, d_a).
        """
        lead, rounds = frames.shape[:2], len(self.adapters)
        return tuple(
            tower.run_round(tower.stem(x.flatten(0, 1)), 0, rounds).unflatten(0, lead)
            for tower, x in ((self.visual, frames), (self.audio, log_mel))
        )

    def forward(
        self,
        question_free: tuple[torch.Tensor, torch.Tensor],
        words: torch.Tensor,
        word_mask: torch.Tensor,
        segment_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the adapters and the rest of the towers.

        Args:
          question_free: the result of the method of the same name, for V videos.
          words: (B, N) token ids; the questions about a video are consecutive.
          word_mask: (B, N) bool, True for words.
          segment_mask: (V, T) bool, True for segments that exist.

        Returns:
          Pooled visual (B, T, d) and audio (B, T, d) features, and text tokens (B, N, d_t).
        """
        visual, audio = question_free
        text, rounds = self.text.embeddings(words), len(self.adapters)
        for index, adapters in enumerate(self.adapters):
            if index:
                visual, audio = (
                    tower.run_round(x.flatten(0, 1), index, rounds).unflatten(0, x.shape[:2])
                    for tower, x in ((self.visual, visual), (self.audio, audio))
                )
            text = self.text.run_round(text, word_mask, index, rounds)
            visual, audio, text = adapters(visual, audio, text, word_mask, segment_mask)
        return (
            self.visual.tail(visual.flatten(0, 1)).unflatten(0, visual.shape[:2]),
            self.audio.tail(audio.flatten(0, 1)).unflatten(0, audio.shape[:2]),
            text,
        )
