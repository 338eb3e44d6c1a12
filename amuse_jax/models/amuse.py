"""Amuse: answers to questions about videos, with the attention weights behind them (paper Fig. 2).

Axes: V videos, Q questions, N words, T segments, K regions, S streams, A answers.
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.models import platform, streams
from amuse_jax.models.answer import AnswerConfig, AnswerHead
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.interactive_encoder import (
    InteractiveConfig,
    InteractiveEncoder,
    QuestionFree,
)
from amuse_jax.models.paper_head import PaperHead
from amuse_jax.models.streams import StreamConfig, Streams
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.text import TextConfig, TextTower
from amuse_jax.music_avqa import vocabulary


@dataclasses.dataclass(frozen=True)
class AmuseConfig:
    """Sizes of the whole model.

    Attributes:
      encoder: sizes of the towers and the adapters; `Phrases.vocab_size` replaces the text tower's.
      head: 'ours' for the head in answer.py, 'paper' for the one in paper_head.py.
      answer: sizes of the answer head.
      segments: T.
      feature_size: D, width of a region's features.
      without: the part of Table 4 that is removed; '' for none.
      dtype: dtype of the computation; parameters are float32.
    """

    encoder: InteractiveConfig
    head: str
    answer: AnswerConfig
    segments: int
    feature_size: int
    without: str
    dtype: str

    @classmethod
    def from_settings(cls, config: ConfigDict) -> 'AmuseConfig':
        """Read the sizes from the settings of a run."""
        model = config.model
        text = {name: value for name, value in model.text.items() if name != 'tokenizer'}
        return cls(
            encoder=InteractiveConfig(
                visual=SwinV2Config(**model.visual),
                audio=HTSATConfig(mels=config.audio.mels, **model.audio),
                text=TextConfig(vocab_size=0, **text),
                **model.adapters,
                remat_policy=config.loop.remat_policy,
            ),
            head=model.head,
            answer=AnswerConfig(**model.answer),
            segments=config.data.segments,
            feature_size=config.rois.feature_size,
            without=config.without,
            dtype=platform.compute_dtype(model.dtype).name,
        )

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the model's streams, in order."""
        return streams.names_without(self.without)


# Indices of left, middle and right in vocabulary.ANSWERS.
PLACES = np.array([vocabulary.ANSWERS.index(place) for place in ('left', 'middle', 'right')])

# Padded token ids of several names, ((id, ...), ...), and their masks, ((is a token, ...), ...).
Rows = tuple[tuple[tuple[int, ...], ...], tuple[tuple[bool, ...], ...]]


@dataclasses.dataclass(frozen=True)
class Phrases:
    """Token ids of the names that the model embeds; they are constants, not parameters.

    Attributes:
      vocab_size: number of word pieces, the rows of the word table.
      answers: names of vocabulary.ANSWERS.
      instruments: names of vocabulary.INSTRUMENTS.
      classes: names of the detector's classes.
      is_instrument: whether each class of the detector is an instrument.
    """

    vocab_size: int
    answers: Rows
    instruments: Rows
    classes: Rows
    is_instrument: tuple[bool, ...]

    @classmethod
    def from_settings(cls, tokenizer: QuestionTokenizer, class_names: Sequence[str]) -> 'Phrases':
        """Tokenize the names of all answers, instruments and detector classes."""

        def rows(names):
            ids, mask = tokenizer.encode_names(list(names))
            return tuple(map(tuple, ids.tolist())), tuple(map(tuple, mask.tolist()))

        return cls(
            vocab_size=tokenizer.vocab_size,
            answers=rows(vocabulary.ANSWERS),
            instruments=rows(vocabulary.INSTRUMENTS),
            classes=rows(class_names),
            is_instrument=tuple(name in vocabulary.INSTRUMENTS for name in class_names),
        )


@flax.struct.dataclass
class AmuseInputs:
    """A batch of videos, each with Q questions.

    The inputs of streams that the model does not have may be None.

    Attributes:
      words: [V, Q, N] int32 token ids, [CLS] first.
      word_mask: [V, Q, N] bool, False = padding.
      segment_mask: [V, T] bool, False = the video has no such segment.
      question_free: tokens that enter the first adapters; None = use `closed`.
      closed: visual [V, T, d] and audio [V, T, d], pooled streams of towers with closed adapters.
      rhythm_visual, rhythm_audio, source_visual, source_audio: [V, T, d] features of the universal
        encoder.
      rhythm: [V, T] change of rhythm predicted by the universal encoder.
      sources: [V, T, 22] source frequencies predicted by the universal encoder.
      boxes: [V, T, K, 4] x0, y0, x1, y1 of each region, as fractions of the image's sides.
      classes: [V, T, K] index of each region's class; -1 = no region.
      scores: [V, T, K] scores of the detector, in [0, 1].
      features: [V, T, K, D] features of the detector.
    """

    words: jax.Array
    word_mask: jax.Array
    segment_mask: jax.Array
    question_free: QuestionFree | None = None
    closed: tuple[jax.Array, jax.Array] | None = None
    rhythm_visual: jax.Array | None = None
    rhythm_audio: jax.Array | None = None
    source_visual: jax.Array | None = None
    source_audio: jax.Array | None = None
    rhythm: jax.Array | None = None
    sources: jax.Array | None = None
    boxes: jax.Array | None = None
    classes: jax.Array | None = None
    scores: jax.Array | None = None
    features: jax.Array | None = None


@flax.struct.dataclass
class AmuseOutput:
    """The answers and the attention weights behind them.

    Attributes:
      logits: [V, Q, A] float32, one per answer in vocabulary.ANSWERS.
      importance: [V, Q, S] float32, importance of each stream in `Amuse.streams` (Fig. 5); sums to
        one.
      region_weights: [V, Q, T * K], share of the attention inside `regions` that each region got;
        [V, Q, 0] without that stream.
      time_weights: [V, Q, S, T], share of the attention inside each stream that each segment got.
    """

    logits: jax.Array
    importance: jax.Array
    region_weights: jax.Array
    time_weights: jax.Array


class Amuse(nnx.Module):
    """The whole model: the interactive encoder, the streams and the answer head.

    Attributes:
      encoder: the InteractiveEncoder, or None in a model without it.
      answer: the answer head that `config.head` names.
      answer_streams: the streams of our head; the paper's head embeds its own.
      streams: names of the streams, in the order of `AmuseOutput.importance`.
    """

    def __init__(self, config: AmuseConfig, phrases: Phrases, *, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.dtype)
        text = dataclasses.replace(config.encoder.text, vocab_size=phrases.vocab_size)
        self.config, self.phrases, self.streams = config, phrases, config.streams
        if 'visual' in self.streams:
            encoder = dataclasses.replace(config.encoder, text=text)
            self.encoder = InteractiveEncoder(encoder, rngs=rngs, dtype=dtype)
        else:
            policy = config.encoder.remat_policy
            self.encoder = None
            self.lone_text = TextTower(text, rngs=rngs, dtype=dtype, remat_policy=policy)
        self._build_head(text.width, rngs, dtype)

    def _build_head(self, text_width: int, rngs: nnx.Rngs, dtype) -> None:
        config, answers = self.config, len(vocabulary.ANSWERS)
        sizes = StreamConfig(
            names=self.streams,
            widths=_widths(config),
            segments=config.segments,
            is_instrument=self.phrases.is_instrument,
            width=config.answer.width,
        )
        if config.head == 'paper':
            self.answer = PaperHead(
                sizes, config.answer, text_width, answers, rngs=rngs, dtype=dtype
            )
            return
        self.answer = AnswerHead(
            config.answer, text_width, answers, len(self.streams), rngs=rngs, dtype=dtype
        )
        self.answer_streams = Streams(sizes, rngs=rngs, dtype=dtype)

    @property
    def text(self) -> TextTower:
        """The text tower, which a model without the interactive encoder has too."""
        return self.lone_text if self.encoder is None else self.encoder.text

    def __call__(self, inputs: AmuseInputs, rngs: nnx.Rngs | None = None) -> AmuseOutput:
        """Answer every question of every video.

        Args:
          inputs: the batch.
          rngs: random keys for the dropout of our head; None = no dropout.
        Raises:
          ValueError: the model has an interactive encoder, but `inputs` has neither
            `question_free` nor `closed`.
        """
        visual, audio, text = self._encode(inputs)
        if self.config.head == 'paper':
            return AmuseOutput(*self.answer(inputs, visual, audio, text))

        def names(rows: Rows) -> jax.Array:
            ids, mask = (np.asarray(part) for part in rows)
            return self.answer.embed_names(self.text.embed_phrases(ids, mask))

        answers = names(self.phrases.answers)
        embedded, region_share = self.answer_streams(
            inputs,
            visual,
            audio,
            names(self.phrases.classes),
            names(self.phrases.instruments),
            answers[PLACES],
        )
        logits, importance, weights = self.answer(
            text, self.text.words(inputs.words), inputs.word_mask, embedded,
            answers, rngs,
        )  # fmt: skip
        time = [jnp.einsum('vqn,vnt->vqt', w, stream.time) for w, stream in zip(weights, embedded)]
        if region_share is None:
            regions = jnp.zeros((*logits.shape[:2], 0))
        else:
            regions = jnp.einsum('vqn,vnr->vqr', weights[-1], region_share)
        return AmuseOutput(logits, importance, regions, jnp.stack(time, axis=2))

    def _encode(self, inputs: AmuseInputs):
        """Return visual and audio streams [V, Q or 1, T, d] and text tokens [V, Q, N, d_t].

        Without the interactive encoder visual and audio are None.
        """
        if self.encoder is not None and inputs.question_free is not None:
            return self.encoder(
                inputs.question_free, inputs.words, inputs.word_mask, inputs.segment_mask
            )
        if self.encoder is not None and inputs.closed is None:
            raise ValueError('the interactive encoder needs inputs.question_free or inputs.closed')
        lead, count = inputs.words.shape[:2], inputs.words.shape[2]
        text = self.text(inputs.words.reshape(-1, count), inputs.word_mask.reshape(-1, count))
        text = text.reshape(*lead, *text.shape[1:])
        if self.encoder is None:
            return None, None, text
        return *(stream[:, None] for stream in inputs.closed), text


def _widths(config: AmuseConfig) -> tuple[tuple[str, int], ...]:
    """Return the width of every stream's features.

    A tower's output is 8 times as wide as its stage 1: three later stages double the width each.
    """
    towers = {'visual': config.encoder.visual, 'audio': config.encoder.audio}
    widths = {
        name: 8 * towers[name.rpartition('_')[2]].width
        for name in streams.PARTS
        if name != 'regions'
    }
    return tuple((widths | {'regions': config.feature_size}).items())
