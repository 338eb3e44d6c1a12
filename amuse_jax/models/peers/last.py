"""LAST and LAST-Att (Liu et al. 2024), as far as they are described: no code was ever released.

model = LAST(LASTConfig(semantic_width=768), rngs=nnx.Rngs(0))  # LAST-Att
logits = model.logits(example(LASTConfig(semantic_width=768), batch=1, seed=0))

Described: LAST builds on LAVISH; spatial maps of sound and frame attend to each other, position by
position; LAST-Att adds the Audio Spectrogram Transformer, which gives a map of what sounds mean.

Chosen here, because nothing says it:
- one round of attention in each direction, after LAVISH's tower, with 4 heads at LAVISH's width,
  each a post-norm layer (attention, residual, norm, MLP, norm), separately for each segment;
- the visual map attends to LAVISH's sound tokens first, then to those of the spectrogram
  transformer; both kinds of sound tokens attend to the visual map that LAVISH gives;
- the audio vector of the head is the mean of the sound tokens, plus the mean of the others;
- the spectrogram transformer is frozen, its tokens are an input (768 channels, any number);
- question encoder, grounding, temporal attention and answer are AVST's; loss and recipe LAVISH's.
"""

import dataclasses
from collections.abc import Mapping

import flax.struct
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from amuse_jax.models.peers import lavish, parts
from amuse_jax.models.peers.grounded_head import HeadOutput
from amuse_jax.models.peers.lavish import LAVISH, LAVISHConfig

Inputs = Mapping[str, Array]
SEMANTIC_TOKENS = 12  # of an example; AST gives 12 rows of patches per column of time


@dataclasses.dataclass(frozen=True)
class LASTConfig:
    """Sizes of LAST.

    Attributes:
      lavish: sizes of the tower, its adapters and the head.
      semantic_width: channels of the spectrogram transformer's tokens; 0 = LAST, without them.
      heads: heads of the attention between the maps.
      dropout: of that attention and its MLPs.
    """

    lavish: LAVISHConfig = LAVISHConfig()
    semantic_width: int = 0
    heads: int = 4
    dropout: float = 0.1


@flax.struct.dataclass
class LASTOutput:
    """Logits, and the intermediates by name.

    Attributes:
      logits: [b, answers].
      visual: [b, t, p, d] visual map after all exchanges.
      audio: [b, t, p, d] sound tokens after theirs.
      semantic: [b, t, n, d] tokens of the spectrogram transformer after theirs; None in LAST.
      weights: [b, t, p, p] of each visual position over the sound tokens.
      head: intermediates of the head.
    """

    logits: Array
    visual: Array
    audio: Array
    semantic: Array | None
    weights: Array
    head: HeadOutput


class Exchange(nnx.Module):
    """LN(x + attention of x to another map), then an MLP with a norm after it."""

    def __init__(self, config: LASTConfig, rngs: nnx.Rngs):
        width, self.dropout = config.lavish.head.width, config.dropout
        self.attention = parts.MultiheadAttention(width, config.heads, config.dropout, rngs)
        self.norm = parts.layer_norm(width, rngs)
        self.feed = parts.FeedForward(width, width, config.dropout, rngs)

    def __call__(self, x: Array, other: Array, rngs: nnx.Rngs | None) -> tuple[Array, Array]:
        """[..., n, d], [..., m, d] -> [..., n, d], and the mean weights [..., n, m]."""
        attended, weights = self.attention(x, other, rngs)
        x = self.norm(x + parts.dropout(attended, self.dropout, rngs))
        return self.feed(x, rngs), weights


class Semantic(nnx.Module):
    """What LAST-Att adds: the spectrogram transformer's tokens, and their exchange with sight."""

    def __init__(self, config: LASTConfig, rngs: nnx.Rngs):
        self.project = parts.linear(config.semantic_width, config.lavish.head.width, rngs)
        self.to_sight, self.from_sight = (Exchange(config, rngs) for _ in range(2))


class LAST(nnx.Module):
    """LAST, or LAST-Att where `config.semantic_width` is not 0."""

    def __init__(self, config: LASTConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.lavish = LAVISH(config.lavish, rngs=rngs)
        self.see_sound, self.hear_sight = (Exchange(config, rngs) for _ in range(2))
        self.semantic = Semantic(config, rngs) if config.semantic_width else None

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> LASTOutput:
        """Answer questions and match sounds and frames.

        Args:
          inputs: those of LAVISH; LAST-Att takes `semantic` [b, t, n, 768] too, the spectrogram
            transformer's tokens of each segment.
          rngs: random keys for dropout; None = no dropout.
        """
        streams = self.lavish.encode(inputs, rngs)
        visual, weights = self.see_sound(streams.visual, streams.audio, rngs)
        audio, _ = self.hear_sight(streams.audio, streams.visual, rngs)
        vector, semantic = audio.mean(-2), None
        if self.semantic is not None:
            meaning = self.semantic.project(jnp.asarray(inputs['semantic']))
            visual, _ = self.semantic.to_sight(visual, meaning, rngs)
            semantic, _ = self.semantic.from_sight(meaning, streams.visual, rngs)
            vector = vector + semantic.mean(-2)
        head = self.lavish.conclude(inputs, visual, vector, rngs)
        return LASTOutput(head.logits, visual, audio, semantic, weights, head)

    def logits(self, inputs: Inputs) -> Array:
        """Return the logits [b, 42] of the answers; `inputs` as in `__call__`, without dropout."""
        return self({name: x for name, x in inputs.items() if name != 'negative'}).logits


def example(config: LASTConfig, batch: int, seed: int, segments: int = lavish.SEGMENTS) -> dict:
    """Return random inputs of LAST or LAST-Att by name; see `LAST.__call__`."""
    inputs = lavish.example(config.lavish, batch, seed, segments)
    if config.semantic_width:
        shape = batch, segments, SEMANTIC_TOKENS, config.semantic_width
        inputs['semantic'] = parts.normal_example(shape, np.random.default_rng(seed + 1))
    return inputs
