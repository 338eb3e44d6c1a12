"""Amuse: videos and questions -> answers, with what they rest on (paper Fig. 2).

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
from amuse_jax.models import streams
from amuse_jax.models.answer import AnswerConfig, AnswerHead
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.interactive_encoder import Front, InteractiveConfig, InteractiveEncoder
from amuse_jax.models.streams import StreamConfig, Streams
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.models.text import TextConfig, TextTower
from amuse_jax.music_avqa import vocabulary


@dataclasses.dataclass(frozen=True)
class AmuseConfig:
    """Sizes of the whole model.

    Attributes:
      encoder: of the towers and the adapters; its text's vocab_size comes from the Phrases.
      answer: of the answer head.
      segments: T.
      feature_size: D, width of a region's features.
      without: part of Table 4 left out, '' for none.
      dtype: of the compute; parameters are float32.
    """

    encoder: InteractiveConfig
    answer: AnswerConfig
    segments: int
    feature_size: int
    without: str
    dtype: str

    @classmethod
    def from_settings(cls, config: ConfigDict) -> 'AmuseConfig':
        model = config.model
        text = {name: value for name, value in model.text.items() if name != 'tokenizer'}
        return cls(
            encoder=InteractiveConfig(
                visual=SwinV2Config(**model.visual),
                audio=HTSATConfig(mels=config.audio.mels, **model.audio),
                text=TextConfig(vocab_size=0, **text),
                **model.adapters,
                kept=config.loop.kept,
            ),
            answer=AnswerConfig(**model.answer),
            segments=config.data.segments,
            feature_size=config.rois.feature_size,
            without=config.without,
            dtype=model.dtype,
        )

    @property
    def streams(self) -> tuple[str, ...]:
        return streams.names_without(self.without)


# Where left, middle and right are among the answers.
PLACES = np.array([vocabulary.ANSWERS.index(place) for place in ('left', 'middle', 'right')])

# Token ids of names, padded: ((id, ...), ...) and ((is a token, ...), ...).
Rows = tuple[tuple[tuple[int, ...], ...], tuple[tuple[bool, ...], ...]]


@dataclasses.dataclass(frozen=True)
class Phrases:
    """What answers, instruments and a detector's classes are called: constants, not parameters.

    Attributes:
      vocab_size: rows of the word table.
      answers: of vocabulary.ANSWERS.
      instruments: of vocabulary.INSTRUMENTS.
      classes: of the detector's classes.
      is_instrument: per class of the detector.
    """

    vocab_size: int
    answers: Rows
    instruments: Rows
    classes: Rows
    is_instrument: tuple[bool, ...]

    @classmethod
    def from_settings(cls, tokenizer: QuestionTokenizer, class_names: Sequence[str]) -> 'Phrases':
        def rows(names):
            ids, mask = tokenizer.phrases(list(names))
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

    Attributes:
      words: [V, Q, N] int32 token ids, [CLS] first.
      word_mask: [V, Q, N] bool.
      segment_mask: [V, T] bool, False = the video has no such segment.
      front: tokens for the interactive encoder; None: `closed` is used.
      closed: (visual [V, T, d], audio [V, T, d]), what the towers give with their adapters closed.
      rhythm_visual, rhythm_audio, source_visual, source_audio: [V, T, d] of the universal encoder.
      rhythm: [V, T], its prediction.
      sources: [V, T, 22], its prediction.
      boxes: [V, T, K, 4] x0, y0, x1, y1 in [0, 1] of the picture.
      classes: [V, T, K] index of the class, -1: no region.
      scores: [V, T, K] in [0, 1].
      features: [V, T, K, D].
    Streams that the model is built without may be None.
    """

    words: jax.Array
    word_mask: jax.Array
    segment_mask: jax.Array
    front: Front | None = None
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
    """Answers, and what they rest on.

    Attributes:
      logits: [V, Q, A] float32, of vocabulary.ANSWERS.
      importance: [V, Q, S] float32, sums to one: of the streams named `Amuse.streams` (Fig. 5).
      region_weights: [V, Q, T * K], share of the attention to the regions that each one got; zeros
        without regions.
      time_weights: [V, Q, S, T], how the attention inside each stream spread over the segments.
    """

    logits: jax.Array
    importance: jax.Array
    region_weights: jax.Array
    time_weights: jax.Array


class Amuse(nnx.Module):
    """The interactive encoder, the streams and the answer head.

    Attributes:
      encoder: InteractiveEncoder, or None without it.
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
            self.encoder, self.lone_text = (
                None,
                TextTower(text, rngs=rngs, dtype=dtype, kept=config.encoder.kept),
            )
        self.answer = AnswerHead(
            config.answer, text.width, len(vocabulary.ANSWERS), len(self.streams),
            rngs=rngs, dtype=dtype,
        )  # fmt: skip
        self.answer_streams = Streams(
            StreamConfig(
                names=self.streams,
                widths=_widths(config),
                segments=config.segments,
                is_instrument=phrases.is_instrument,
                width=config.answer.width,
            ),
            rngs=rngs,
            dtype=dtype,
        )

    @property
    def text(self) -> TextTower:
        return self.lone_text if self.encoder is None else self.encoder.text

    def __call__(self, inputs: AmuseInputs, rngs: nnx.Rngs | None = None) -> AmuseOutput:
        """Answers every question of every video.

        Args:
          rngs: for dropout; None: none.
        Raises:
          ValueError: the interactive encoder finds neither `front` nor `closed` in `inputs`.
        """
        visual, audio, text = self._encode(inputs)

        def names(rows: Rows) -> jax.Array:
            ids, mask = (np.asarray(part) for part in rows)
            return self.answer.names(self.text.words_of(ids, mask))

        answers = names(self.phrases.answers)
        found, spread = self.answer_streams(
            inputs,
            visual,
            audio,
            names(self.phrases.classes),
            names(self.phrases.instruments),
            answers[PLACES],
        )
        logits, importance, weights = self.answer(
            text, self.text.words(inputs.words), inputs.word_mask, found,
            answers, rngs,
        )  # fmt: skip
        time = [jnp.einsum('vqn,vnt->vqt', w, stream.time) for w, stream in zip(weights, found)]
        if spread is None:
            regions = jnp.zeros((*logits.shape[:2], 0))
        else:
            regions = jnp.einsum('vqn,vnr->vqr', weights[-1], spread)
        return AmuseOutput(logits, importance, regions, jnp.stack(time, axis=2))

    def _encode(self, inputs: AmuseInputs):
        """visual, audio [V, Q or 1, T, d] (None without the encoder) and text [V, Q, N, d_t]."""
        if self.encoder is not None and inputs.front is not None:
            return self.encoder(inputs.front, inputs.words, inputs.word_mask, inputs.segment_mask)
        if self.encoder is not None and inputs.closed is None:
            raise ValueError('the interactive encoder needs inputs.front or inputs.closed')
        lead, count = inputs.words.shape[:2], inputs.words.shape[2]
        text = self.text(inputs.words.reshape(-1, count), inputs.word_mask.reshape(-1, count))
        text = text.reshape(*lead, *text.shape[1:])
        if self.encoder is None:
            return None, None, text
        return *(stream[:, None] for stream in inputs.closed), text


def _widths(config: AmuseConfig) -> tuple[tuple[str, int], ...]:
    """Of every stream's features; a tower doubles its width with each of the three later stages."""
    towers = {'visual': config.encoder.visual, 'audio': config.encoder.audio}
    widths = {
        name: 8 * towers[name.rpartition('_')[2]].width
        for name in streams.PARTS
        if name != 'regions'
    }
    return tuple((widths | {'regions': config.feature_size}).items())
