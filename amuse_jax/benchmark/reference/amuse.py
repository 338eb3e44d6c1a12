"""Amuse: from videos and questions to answers and their attention weights (Fig. 2).

V videos have B questions, equally many each; the questions about a video are consecutive. What does
not depend on the question is computed once per video.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import nn

from amuse_jax.benchmark.reference import streams
from amuse_jax.benchmark.reference.answer import AnswerHead
from amuse_jax.benchmark.reference.interactive_encoder import InteractiveEncoder
from amuse_jax.benchmark.reference.paper_head import PaperHead
from amuse_jax.benchmark.reference.streams import Streams
from amuse_jax.benchmark.reference.universal_encoder import UniversalEncoder
from amuse_jax.models.amuse import PLACES, Phrases, Rows
from amuse_jax.training.train.answering import QUESTION_FREE


class Output(NamedTuple):
    """Answers and the attention weights behind them.

    Attributes:
      logits: (B, A), the scores of the answers.
      importance: (B, S), the weights of the streams, in the order of streams.NAMES.
      region_weights: (B, T * K), the weights of the regions.
      time_weights: (B, S, T), the weights of the segments in each stream.
    """

    logits: torch.Tensor
    importance: torch.Tensor
    region_weights: torch.Tensor
    time_weights: torch.Tensor


class Amuse(nn.Module):
    """The interactive encoder, all streams, and the answer head.

    Args:
      config: the sizes, and `model.head`: 'ours' or 'paper'.
      phrases: the names of answers, instruments and classes.
    """

    def __init__(self, config: ConfigDict, phrases: Phrases):
        super().__init__()
        self.encoder = InteractiveEncoder(config, phrases.vocab_size)
        torch.manual_seed(1)
        self.is_plain = config.model.head == 'paper'
        if self.is_plain:
            self.answer = PaperHead(config, len(phrases.classes[0]), len(phrases.answers[0]))
            vary_norms(self.encoder.adapters)
            return
        self.answer = AnswerHead(
            config.model.answer, config.model.text.width, len(phrases.answers[0]),
            len(streams.NAMES),
        )  # fmt: skip
        self.answer_streams = Streams(config, phrases.is_instrument)
        for name in ('answers', 'instruments', 'classes'):
            self._register_phrases(name, getattr(phrases, name))
        self.register_buffer('places', torch.tensor(PLACES), persistent=False)
        vary_norms(self.encoder.adapters)
        vary_norms(self.answer)
        vary_norms(self.answer_streams)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> Output:
        """Answer the questions about each video.

        Args:
          inputs: arrays by name. words, word_mask and segment_mask are as for InteractiveEncoder.
            frames and log_mel are as for its `question_free`; its result can be given instead, as
            front_visual and front_audio. The others are as for Streams, without visual and audio.
        """
        if QUESTION_FREE[0] in inputs:
            question_free = tuple(inputs[name] for name in QUESTION_FREE)
        else:
            question_free = self.encoder.question_free(inputs['frames'], inputs['log_mel'])
        visual, audio, text = self.encoder(
            question_free, *(inputs[name] for name in ('words', 'word_mask', 'segment_mask'))
        )
        if self.is_plain:
            return Output(*self.answer({**inputs, 'visual': visual, 'audio': audio}, text))
        answers, instruments, classes = (
            self._embed_names(name) for name in ('answers', 'instruments', 'classes')
        )
        tokens, region_spread = self.answer_streams(
            {**inputs, 'visual': visual, 'audio': audio},
            classes, instruments, answers[self.places],
        )  # fmt: skip
        logits, importance, weights = self.answer(
            text, self._word_table(inputs['words']), inputs['word_mask'], tokens, answers
        )
        time = [
            (weight[:, None] @ stream.time)[:, 0] for weight, stream in zip(weights, tokens)
        ]  # each (B, T)
        regions = (weights[-1][:, None] @ region_spread)[:, 0]
        return Output(logits.float(), importance, regions, torch.stack(time, dim=1))

    @property
    def _word_table(self) -> nn.Embedding:
        return self.encoder.text.embeddings.word_embeddings

    def _register_phrases(self, name: str, rows: Rows) -> None:
        for kind, values in zip(('ids', 'mask'), rows):
            self.register_buffer(f'{name}_{kind}', torch.tensor(values), persistent=False)

    def _embed_names(self, name: str) -> torch.Tensor:
        """Return (n, d): the mean of each phrase's words, projected by the answer head."""
        ids, mask = (getattr(self, f'{name}_{kind}') for kind in ('ids', 'mask'))
        share = mask / mask.sum(-1, keepdim=True).clamp(min=1)
        return self.answer.names((share[..., None] * self._word_table(ids)).sum(1))


class FrozenEncoders(nn.Module):
    """What is frozen while Amuse is trained: the universal encoder, and layers of the towers."""

    def __init__(self, universal: UniversalEncoder, encoder: InteractiveEncoder):
        super().__init__()
        self.universal, self.encoder = universal, encoder

    def forward(self, frames: torch.Tensor, log_mel: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what can be stored for each video, by its name in the inputs of Amuse.

        Args:
          frames: (V, T, S, S, 3) uint8 RGB.
          log_mel: (V, T, F, mels) in dB.
        """
        tokens = self.encoder.question_free(frames, log_mel)
        return self.universal(frames, log_mel) | dict(zip(QUESTION_FREE, tokens))


def vary_norms(module: nn.Module) -> None:
    """Give layer norms different weights, as training does: initial weights hide mistakes."""
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.weight.normal_(1.0, 0.1)
                norm.bias.normal_(0.0, 0.1)
