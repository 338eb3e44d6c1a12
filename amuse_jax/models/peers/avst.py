"""AVST (Li et al. 2022): spatio-temporal grounding over stored VGGish and ResNet-18 features.

model = AVST(AVSTConfig(), rngs=nnx.Rngs(0))
logits = model.logits(example(AVSTConfig(), batch=2, seed=0))
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from amuse_jax.data import train_words
from amuse_jax.models.peers import grounded_head, parts
from amuse_jax.models.peers.grounded_head import Grounded, HeadConfig, HeadOutput

Inputs = Mapping[str, Array]
AUDIO_WIDTH = 128  # channels of a VGGish vector
SEGMENTS = 10  # every sixth second of a minute
MAP_SIDE = 14  # ResNet-18 with stride 1 in layer4, at 224 px


@dataclasses.dataclass(frozen=True)
class AVSTConfig:
    """Sizes of AVST.

    Attributes:
      head: sizes of the answer head; its width is that of the visual maps too.
      audio_width: channels of the audio features.
    """

    head: HeadConfig = HeadConfig(512)
    audio_width: int = AUDIO_WIDTH


class AVSTGrounding(nnx.Module):
    """AVST's first training stage: does a second of sound belong to a frame?

    `AVST.adopt` takes over its weights.
    """

    def __init__(self, config: AVSTConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.audio = grounded_head.AudioProjection(config.audio_width, config.head.width, rngs)
        self.grounding = grounded_head.Grounding(config.head, rngs)

    def __call__(self, inputs: Inputs) -> Grounded:
        """Match sounds and frames.

        Args:
          inputs: `audio` [b, 128] and `visual` [b, 14, 14, 512].
        """
        visual = _positions(inputs['visual'])
        return self.grounding(self.audio(inputs['audio']), visual)

    def logits(self, inputs: Inputs) -> Array:
        """Return logits [b, 2] of "do not belong together" and "belong together"."""
        return self(inputs).match


class AVST(nnx.Module):
    """AVST as released.

    Differs from the released class: it leaves out the layers that its forward never calls, and the
    ResNet-18, which runs beforehand.
    """

    def __init__(self, config: AVSTConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.audio = grounded_head.AudioProjection(config.audio_width, config.head.width, rngs)
        self.head = grounded_head.GroundedHead(config.head, rngs)

    def adopt(self, grounding: AVSTGrounding) -> None:
        """Copy the weights of the first training stage into this model."""
        grounded_head.adopt(self.head, self.audio, grounding)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> HeadOutput:
        """Answer questions and match sounds and frames.

        Args:
          inputs: `question` [b, 14] int32 word ids, 0 = padding; `audio` [b, t, 128], VGGish
            vectors after ReLU; `visual` [b, t, 14, 14, 512], ResNet-18 maps (the released class
            takes them as [b, t, 512, 14, 14]); `negative`, maps of other videos in the same shape,
            may be left out.
          rngs: random keys for dropout; None = no dropout.
        """
        negative = inputs.get('negative')
        return self.head(
            jnp.asarray(inputs['question']),
            self.audio(inputs['audio']),
            _positions(inputs['visual']),
            None if negative is None else _positions(negative),
            rngs,
        )

    def logits(self, inputs: Inputs) -> Array:
        """Return the logits [b, 42] of the answers; `inputs` as in `__call__`, without dropout."""
        return self({name: x for name, x in inputs.items() if name != 'negative'}).logits


def example(config: AVSTConfig, batch: int, seed: int, side: int = MAP_SIDE) -> dict:
    """Return random inputs of AVST by name; see `AVST.__call__`."""
    rng = np.random.default_rng(seed)
    shape = batch, SEGMENTS, side, side, config.head.width
    return {
        'question': rng.integers(0, config.head.vocabulary, (batch, train_words.LENGTH), np.int32),
        'audio': np.maximum(parts.normal_example((batch, SEGMENTS, config.audio_width), rng), 0),
        'visual': np.maximum(parts.normal_example(shape, rng), 0),
        'negative': np.maximum(parts.normal_example(shape, rng), 0),
    }


def grounding_example(config: AVSTConfig, batch: int, seed: int, side: int = MAP_SIDE) -> dict:
    """Return random inputs of AVSTGrounding by name; see `AVSTGrounding.__call__`."""
    rng = np.random.default_rng(seed)
    shape = batch, side, side, config.head.width
    return {
        'audio': np.maximum(parts.normal_example((batch, config.audio_width), rng), 0),
        'visual': np.maximum(parts.normal_example(shape, rng), 0),
    }


def _positions(maps: Array) -> Array:
    """[..., h, w, d] -> [..., h * w, d]."""
    maps = jnp.asarray(maps)
    return maps.reshape(*maps.shape[:-3], -1, maps.shape[-1])
