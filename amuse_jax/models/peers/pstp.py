"""PSTP-Net (Li et al. 2023): as released, and as its paper describes it.

model = PSTPReleased(PSTPConfig(), rngs=nnx.Rngs(0))
logits = model.logits(example(PSTPConfig(), batch=2, seed=0))

Axes: b questions, s seconds, p patches of a frame, n words, d channels, f selected seconds, m
selected patches.
"""

import dataclasses
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from amuse_jax.data import train_words
from amuse_jax.models.peers import parts, question
from amuse_jax.models.peers.grounded_head import ANSWERS

Inputs = Mapping[str, Array]
SECONDS = 60
WORDS = 77  # positions of CLIP's text tower
PATCHES = 49  # of CLIP ViT-B/32 at 224 px


@dataclasses.dataclass(frozen=True)
class PSTPConfig:
    """Sizes of PSTP-Net.

    Attributes:
      width: channels of the model.
      audio_width, clip_width: channels of the VGGish vectors and of CLIP's vectors.
      answers: number of answers.
      vocabulary: number of words of the LSTM that encodes the question; 0 = the question is one
        vector of CLIP.
      heads: heads of the attention to segments and patches.
      segments: equal parts that the seconds are cut into (`PSTPPaper` alone, as the next two).
      top_segments, top_patches: how many segments, and patches per frame, are selected.
      dropout: of all attention weights and residual branches.
    """

    width: int = 512
    audio_width: int = 128
    clip_width: int = 512
    answers: int = ANSWERS
    vocabulary: int = 0
    heads: int = 4
    segments: int = 20
    top_segments: int = 7
    top_patches: int = 20
    dropout: float = 0.1


@flax.struct.dataclass
class Selection:
    """The selected seconds and patches.

    Attributes:
      seconds: [b, f] int32, ascending.
      patches: [b, f, m] int32, ascending.
      segment_weights: [b, segments].
      patch_weights: [b, f, p].
      heard: [b, f, d] what the sounds found among the patches.
      audio, visual: [b, s, d] both streams after they attended to each other.
    """

    seconds: Array
    patches: Array
    segment_weights: Array
    patch_weights: Array
    heard: Array
    audio: Array
    visual: Array


@flax.struct.dataclass
class PSTPOutput:
    """Logits, and the intermediates by name.

    Attributes:
      logits: [b, answers].
      question: [b, d].
      tokens: [b, tokens, d] all tokens after the last layer.
      selection: what PSTPPaper selected; None in PSTPReleased.
    """

    logits: Array
    question: Array
    tokens: Array
    selection: Selection | None


class Encoder(nnx.Module):
    """Post-norm layer with one head: LN(x + self-attention [+ attention to another stream]), MLP.

    There is no positional encoding and no mask.
    """

    def __init__(self, config: PSTPConfig, crosses: bool, rngs: nnx.Rngs):
        width, self.dropout = config.width, config.dropout
        self.attention = parts.MultiheadAttention(width, 1, config.dropout, rngs)
        self.cross = parts.MultiheadAttention(width, 1, config.dropout, rngs) if crosses else None
        self.norm = parts.layer_norm(width, rngs)
        self.feed = parts.FeedForward(width, width, config.dropout, rngs)

    def __call__(self, x: Array, other: Array | None, rngs: nnx.Rngs | None) -> Array:
        """[b, n, d] own tokens, [b, m, d] tokens to cross to or None -> [b, n, d]."""
        total = x + parts.dropout(self.attention(x, x, rngs)[0], self.dropout, rngs)
        if other is not None:
            total = total + parts.dropout(self.cross(x, other, rngs)[0], self.dropout, rngs)
        return self.feed(self.norm(total), rngs)


class _PSTP(nnx.Module):
    """The projections of the inputs and the answer, which both variants have."""

    def __init__(self, config: PSTPConfig, *, rngs: nnx.Rngs):
        width, self.config = config.width, config
        self.audio = parts.linear(config.audio_width, width, rngs)
        self.frames = parts.linear(config.clip_width, width, rngs)
        self.words = parts.linear(config.clip_width, width, rngs)
        if config.vocabulary:
            self.question = question.QuestionEncoder(config.vocabulary, width, rngs)
        else:
            self.question = parts.linear(config.clip_width, width, rngs)
        self.encoder = Encoder(config, False, rngs)
        self.answer = parts.linear(width, config.answers, rngs)

    def _project(self, inputs: Inputs) -> tuple[Array, Array, Array, Array]:
        """Return the question [b, d], and the tokens of sounds, frames and words."""
        streams = (self.audio, 'audio'), (self.frames, 'frames'), (self.words, 'words')
        asked = self.question(jnp.asarray(inputs['question']))
        return asked, *(project(jnp.asarray(inputs[name])) for project, name in streams)

    def _answer(self, tokens, asked, selection, rngs) -> PSTPOutput:
        tokens = self.encoder(jnp.concatenate(tokens, axis=1), None, rngs)
        logits = self.answer(jnp.tanh(tokens.mean(1) * asked))
        return PSTPOutput(logits, asked, tokens, selection)

    def logits(self, inputs: Inputs) -> Array:
        """Return the logits [b, 42] of the answers; `inputs` as in `__call__`, without dropout."""
        return self(inputs).logits


class PSTPReleased(_PSTP):
    """What the released forward computes: self-attention over all seconds and words, then a mean.

    Its four modules run in the release too, but a line overwrites their results, so they change no
    answer and get no gradient. The paper's own ablation "w/o all" has the same parameters and
    FLOPs, and 69.47 % on MUSIC-AVQA v1.
    """

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> PSTPOutput:
        """Answer questions.

        Args:
          inputs: `audio` [b, s, 128], VGGish vectors; `frames` [b, s, 512], CLIP's vectors of whole
            frames; `words` [b, 77, 512], CLIP's vectors of the words, padding included; `question`
            [b, 512], CLIP's vector of the question, or [b, 14] int32 word ids if the config has a
            vocabulary.
          rngs: random keys for dropout; None = no dropout.
        """
        asked, *tokens = self._project(inputs)
        return self._answer(tokens, asked, None, rngs)


class PSTPPaper(_PSTP):
    """The four modules of the paper, repaired and used.

    1. Segments: the question attends to the segments; the seconds of the best ones are selected.
    2. Patches: the question attends to the patches of each selected frame; the best are selected,
       by the frame's own weights (the release takes those of the first frame of the first video,
       and puts one patch into all places).
    3. Each selected second of sound attends to the selected patches of its frame.
    4. Audio and visual seconds attend to themselves and to each other, audio first (the release
       returns the inputs).
    All results and the inputs are tokens of the last layer, in the order of the line that the
    release has commented out; the order changes nothing. The selections are hard, so the question's
    attention to segments and patches gets no gradient and stays as drawn, as in the release.

    Chosen, because nothing says it: module 4 gets all seconds, not the selected ones; it has no
    norm after its layer, as the paper's number of parameters has none.
    """

    def __init__(self, config: PSTPConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        width, heads, dropout = config.width, config.heads, config.dropout
        self.patches = parts.linear(config.clip_width, width, rngs)
        self.segment = parts.linear(2 * width, width, rngs)
        self.choose_segments = parts.MultiheadAttention(width, heads, dropout, rngs)
        self.choose_patches = parts.MultiheadAttention(width, heads, dropout, rngs)
        self.hear = parts.AttendAndFeed(width, heads, dropout, rngs)
        self.exchange = Encoder(config, True, rngs)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> PSTPOutput:
        """Answer questions.

        Args:
          inputs: those of PSTPReleased, and `patches` [b, s, 49, 512], CLIP's vectors of the
            patches; the segments divide the seconds.
          rngs: random keys for dropout; None = no dropout.
        Raises:
          ValueError: the segments do not divide the seconds.
        """
        asked, audio, visual, words = self._project(inputs)
        seconds, segment_weights = self.select_seconds(asked, audio, visual, rngs)
        picked_audio, picked_visual = (_take(x, seconds) for x in (audio, visual))

        patches = self.patches(_take(jnp.asarray(inputs['patches']), seconds))
        _, patch_weights = self.choose_patches(asked[:, None, None], patches, rngs)
        patch_weights = patch_weights[:, :, 0]
        chosen = _best(patch_weights, self.config.top_patches)
        patches = jnp.take_along_axis(patches, chosen[..., None], axis=2)
        heard, _ = self.hear(picked_audio[:, :, None], patches, rngs)
        heard = heard[:, :, 0]

        exchanged_audio = self.exchange(audio, visual, rngs)
        exchanged_visual = self.exchange(visual, exchanged_audio, rngs)
        tokens = [
            *(picked_audio, exchanged_audio, audio),
            *(picked_visual, patches.reshape(len(patches), -1, patches.shape[-1]), heard),
            *(exchanged_visual, visual, words),
        ]
        selection = Selection(
            seconds, chosen, segment_weights, patch_weights, heard,
            exchanged_audio, exchanged_visual,
        )  # fmt: skip
        return self._answer(tokens, asked, selection, rngs)

    def select_seconds(
        self, asked: Array, audio: Array, visual: Array, rngs: nnx.Rngs | None
    ) -> tuple[Array, Array]:
        """Return the seconds [b, f] of the best segments, ascending, and the weights of all."""
        config, (batch, seconds, _) = self.config, audio.shape
        if seconds % config.segments:
            raise ValueError(f'{seconds} seconds do not divide into {config.segments} segments')
        length = seconds // config.segments
        both = jnp.concatenate(
            [x.reshape(batch, config.segments, length, -1).mean(2) for x in (audio, visual)], -1
        )
        _, weights = self.choose_segments(asked[:, None], self.segment(jnp.tanh(both)), rngs)
        weights = weights[:, 0]
        best = _best(weights, config.top_segments)
        picked = best[..., None] * length + jnp.arange(length)
        return picked.reshape(batch, -1), weights


def example(config: PSTPConfig, batch: int, seed: int, seconds: int = SECONDS) -> dict:
    """Return random inputs of both variants by name; see their `__call__`."""
    rng = np.random.default_rng(seed)
    asked = parts.normal_example((batch, config.clip_width), rng)
    if config.vocabulary:
        asked = rng.integers(0, config.vocabulary, (batch, train_words.LENGTH), np.int32)
    return {
        'question': asked,
        'audio': np.maximum(parts.normal_example((batch, seconds, config.audio_width), rng), 0),
        'frames': parts.normal_example((batch, seconds, config.clip_width), rng),
        'patches': parts.normal_example((batch, seconds, PATCHES, config.clip_width), rng),
        'words': parts.normal_example((batch, WORDS, config.clip_width), rng),
    }


def _best(weights: Array, count: int) -> Array:
    """Return the places of the largest weights, ascending: [..., n] -> [..., count]."""
    return jnp.sort(jax.lax.top_k(weights, count)[1], axis=-1)


def _take(x: Array, seconds: Array) -> Array:
    """[b, s, ...], [b, f] -> [b, f, ...]."""
    return jax.vmap(lambda one, places: one[places])(x, seconds)
