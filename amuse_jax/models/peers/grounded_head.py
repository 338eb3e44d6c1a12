"""The answer head of AVST (Li et al. 2022), which LAVISH and DG-SCT took over.

Axes: b questions, t segments, p positions of a visual map, d channels.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from amuse_jax.models import windows
from amuse_jax.models.attention import multihead
from amuse_jax.models.peers import parts, question

ANSWERS = 42


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Sizes of the head.

    Attributes:
      width: channels d of the question, the audio vectors and the visual maps.
      answers: number of answers.
      vocabulary: number of words.
      heads: heads of the temporal attention.
      match_widths: hidden channels of the MLP that tells whether sound and frame belong together.
      dropout: of the temporal attention.
    """

    width: int
    answers: int = ANSWERS
    vocabulary: int = question.VOCABULARY
    heads: int = 4
    match_widths: tuple[int, ...] = (512, 256, 128)
    dropout: float = 0.1


@flax.struct.dataclass
class Grounded:
    """What the audio vectors find in a visual map.

    Attributes:
      attention: [..., p] weights of the positions.
      visual: [..., d] grounded visual vector.
      match: [..., 2] logits of "do not belong together" and "belong together".
    """

    attention: Array
    visual: Array
    match: Array


@flax.struct.dataclass
class HeadOutput:
    """Logits, and the intermediates by name.

    Attributes:
      logits: [b, answers].
      question: [b, d].
      positive, negative: sound grounded in its own frame and in another video's; `negative` is None
        where no negative map was given, which changes no logit of the answers.
      attended_visual, attended_audio: [b, d] what the question found over time, after the norms.
      fused: [b, d].
    """

    logits: Array
    question: Array
    positive: Grounded
    negative: Grounded | None
    attended_visual: Array
    attended_audio: Array
    fused: Array


class AudioProjection(nnx.Module):
    """W2 relu(W1 x) of the audio features."""

    def __init__(self, width_in: int, width: int, rngs: nnx.Rngs):
        self.inner = parts.linear(width_in, width, rngs)
        self.outer = parts.linear(width, width, rngs)

    def __call__(self, x: Array) -> Array:
        """[..., d_a] -> [..., d]."""
        return self.outer(jax.nn.relu(self.inner(x)))


class Grounding(nnx.Module):
    """Spatial grounding: an audio vector attends to the positions of a visual map.

      p = softmax over positions of unit(V) unit(a),  s = sum p unit(V)
      v = W tanh([mean V; s]),  match = MLP([a; v])

    The softmax has no temperature, and s sums the normalised map, as in the released code.
    """

    def __init__(self, config: HeadConfig, rngs: nnx.Rngs):
        self.join = parts.linear(2 * config.width, config.width, rngs)
        widths = 2 * config.width, *config.match_widths, 2
        self.match = nnx.List(
            parts.linear(before, after, rngs) for before, after in zip(widths, widths[1:])
        )

    def __call__(self, audio: Array, visual: Array) -> Grounded:
        """Ground sounds in maps.

        Args:
          audio: [..., d].
          visual: [..., p, d].
        """
        directions = windows.unit(visual)
        cosine = multihead.scores(windows.unit(audio)[..., None, :], directions)
        attention = jax.nn.softmax(cosine, axis=-1)
        picked = (attention @ directions)[..., 0, :]
        both = jnp.concatenate([visual.mean(-2), picked], axis=-1)
        grounded = self.join(jnp.tanh(both))
        x = jnp.concatenate([audio, grounded], axis=-1)
        for layer in self.match[:-1]:
            x = jax.nn.relu(layer(x))
        return Grounded(attention[..., 0, :], grounded, self.match[-1](x))


class GroundedHead(nnx.Module):
    """Question, audio vectors and visual maps -> logits of the answers."""

    def __init__(self, config: HeadConfig, rngs: nnx.Rngs):
        self.width = width = config.width
        self.question = question.QuestionEncoder(config.vocabulary, width, rngs)
        self.grounding = Grounding(config, rngs)
        self.visual = parts.AttendAndFeed(width, config.heads, config.dropout, rngs)
        self.audio = parts.AttendAndFeed(width, config.heads, config.dropout, rngs)
        self.fuse = parts.linear(2 * width, width, rngs)
        self.answer = parts.linear(width, config.answers, rngs)

    def __call__(
        self,
        words: Array,
        audio: Array,
        visual: Array,
        negative: Array | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> HeadOutput:
        """Answer questions.

        Args:
          words: [b, n] word ids; or [b, q, n], q questions about each video. Then all outputs but
            `positive` and `negative` have the axis q after b.
          audio: [b, t, d].
          visual: [b, t, p, d] maps of the video's own frames.
          negative: [b, t, p, d] maps of other videos' frames, or None.
          rngs: random keys for dropout; None = no dropout.
        """
        lead = words.shape[:-1]
        asked = self.question(words.reshape(-1, words.shape[-1])).reshape(
            len(words), -1, self.width
        )
        positive = self.grounding(audio, visual)
        attended_visual, _ = self.visual(asked, positive.visual, rngs)
        attended_audio, _ = self.audio(asked, audio, rngs)
        means = audio.mean(1, keepdims=True), positive.visual.mean(1, keepdims=True)
        streams = attended_audio + means[0], attended_visual + means[1]
        fused = self.fuse(jnp.tanh(jnp.concatenate(streams, axis=-1)))
        logits = self.answer(jnp.tanh(fused * asked))
        logits, asked, attended_visual, attended_audio, fused = (
            x.reshape(*lead, -1) for x in (logits, asked, attended_visual, attended_audio, fused)
        )
        return HeadOutput(
            logits=logits,
            question=asked,
            positive=positive,
            negative=None if negative is None else self.grounding(audio, negative),
            attended_visual=attended_visual,
            attended_audio=attended_audio,
            fused=fused,
        )


def adopt(head: GroundedHead, audio: nnx.Module, grounding: nnx.Module) -> None:
    """Copy the weights of AVST's first training stage into a model with this head.

    Args:
      head: the model's head.
      audio: what the model does to audio features before the head: an AudioProjection, or its
        second layer alone.
      grounding: an avst.AVSTGrounding of the same sizes.
    """
    own = grounding.audio if isinstance(audio, AudioProjection) else grounding.audio.outer
    nnx.update(audio, nnx.state(own))
    nnx.update(head.grounding, nnx.state(grounding.grounding))
