"""Amuse: videos and a question each -> answers, with what they rest on (paper Fig. 2)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from ml_collections import ConfigDict
from torch import nn

from amuse_jax.benchmark.reference import streams
from amuse_jax.benchmark.reference.answer import AnswerHead
from amuse_jax.benchmark.reference.interactive_encoder import InteractiveEncoder
from amuse_jax.benchmark.reference.streams import Streams
from amuse_jax.benchmark.reference.universal_encoder import UniversalEncoder
from amuse_jax.models.amuse import PLACES, Phrases, Rows


class Output(NamedTuple):
    """Answers, and what they rest on.

    Attributes:
      logits: (B, A).
      importance: (B, S), of streams.NAMES.
      region_weights: (B, T * K).
      time_weights: (B, S, T).
    """

    logits: torch.Tensor
    importance: torch.Tensor
    region_weights: torch.Tensor
    time_weights: torch.Tensor


class Amuse(nn.Module):
    """The interactive encoder, the streams and the answer head, with all streams.

    Args:
      config: sizes.
      phrases: what answers, instruments and classes are called.
    """

    def __init__(self, config: ConfigDict, phrases: Phrases):
        super().__init__()
        self.encoder = InteractiveEncoder(config, phrases.vocab_size)
        torch.manual_seed(1)
        self.answer = AnswerHead(
            config.model.answer, config.model.text.width, len(phrases.answers[0]),
            len(streams.NAMES),
        )  # fmt: skip
        self.answer_streams = Streams(config, phrases.is_instrument)
        for name in ('answers', 'instruments', 'classes'):
            self._keep(name, getattr(phrases, name))
        vary_norms(self.encoder.adapters)
        vary_norms(self.answer)
        vary_norms(self.answer_streams)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> Output:
        """Answers a question about each video.

        Args:
          inputs: by name: frames, log_mel, words, word_mask and segment_mask as for
            InteractiveEncoder; the rest as for Streams, but for visual and audio.
        """
        visual, audio, text = self.encoder(
            *(inputs[n] for n in ('frames', 'log_mel', 'words', 'word_mask', 'segment_mask'))
        )
        answers, instruments, classes = (
            self._names(name) for name in ('answers', 'instruments', 'classes')
        )
        found, spread = self.answer_streams(
            {**inputs, 'visual': visual, 'audio': audio},
            classes, instruments, answers[PLACES.tolist()],
        )  # fmt: skip
        logits, importance, weights = self.answer(
            text, self._word_table(inputs['words']), inputs['word_mask'], found, answers
        )
        time = [
            (weight[:, None] @ stream.time)[:, 0] for weight, stream in zip(weights, found)
        ]  # each (B, T)
        regions = (weights[-1][:, None] @ spread)[:, 0]
        return Output(logits.float(), importance, regions, torch.stack(time, dim=1))

    @property
    def _word_table(self) -> nn.Embedding:
        return self.encoder.text.embeddings.word_embeddings

    def _keep(self, name: str, rows: Rows) -> None:
        for kind, values in zip(('ids', 'mask'), rows):
            self.register_buffer(f'{name}_{kind}', torch.tensor(values), persistent=False)

    def _names(self, name: str) -> torch.Tensor:
        """(n, d): the mean of each phrase's words, embedded as the answer head embeds words."""
        ids, mask = (getattr(self, f'{name}_{kind}') for kind in ('ids', 'mask'))
        share = mask / mask.sum(-1, keepdim=True).clamp(min=1)
        return self.answer.names((share[..., None] * self._word_table(ids)).sum(1))


class Everything(nn.Module):
    """The frozen universal encoder, and Amuse with its streams: all that an answer needs."""

    def __init__(self, universal: UniversalEncoder, amuse: Amuse):
        super().__init__()
        self.universal, self.amuse = universal, amuse

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> Output:
        """As Amuse, from inputs that need not hold the universal encoder's streams."""
        with torch.no_grad():
            found = self.universal(inputs['frames'], inputs['log_mel'])
        return self.amuse({**inputs, **found})


def vary_norms(module: nn.Module) -> None:
    """Gives layer norms weights that differ, as training does: fresh ones hide mistakes."""
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.weight.normal_(1.0, 0.1)
                norm.bias.normal_(0.0, 0.1)
