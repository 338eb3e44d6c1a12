"""LAVISH (Lin et al. 2023): one frozen Swin-V2 for frames and spectrograms, with adapters.

model = LAVISH(LAVISHConfig(), rngs=nnx.Rngs(0))
logits = model.logits(example(LAVISHConfig(), batch=1, seed=0))
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
from amuse_jax.models import swin_v2
from amuse_jax.models.data_norm import DataNorm
from amuse_jax.models.peers import grounded_head, parts
from amuse_jax.models.peers.grounded_head import HeadConfig, HeadOutput
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config

Inputs = Mapping[str, Array]
SEGMENTS = 10


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapters; the defaults are the flags of the released README.

    Attributes:
      latents: learned tokens k that gather what the other stream has.
      reduction: r, the factor by which the bottleneck is narrower.
      groups: g, groups of the bottleneck's 1x1 convolutions.
      audio_gate: whether the audio stream's adapters have a gate too.
      batch_norm: whether the bottleneck has batch norms, which always use their stored statistics
        here.
    """

    latents: int = 64
    reduction: int = 8
    groups: int = 4
    audio_gate: bool = True
    batch_norm: bool = False


@dataclasses.dataclass(frozen=True)
class LAVISHConfig:
    """Sizes and switches of LAVISH.

    Attributes:
      swin: sizes of the tower.
      head: sizes of the answer head.
      adapter: sizes of the adapters. The paper's appendix names 16 latents, a reduction of 4 and 2
        groups; the numbers of parameters that the paper prints follow from the defaults.
      drop_path: stochastic depth of the last block in training; it rises linearly from 0 in the
        first block. The released training has 0.1, by mistake: it leaves a frozen tower in
        training mode, so its features are noisy.
    """

    swin: SwinV2Config = swin_v2.named('swinv2_large_window12_192')
    head: HeadConfig = HeadConfig(512)
    adapter: AdapterConfig = AdapterConfig()
    drop_path: float = 0.0


@flax.struct.dataclass
class Streams:
    """Tokens of both streams.

    Attributes:
      visual_stages, audio_stages: tokens [b * t, n_i, d_i] after the blocks of each stage.
      visual, audio: [b, t, p, d] tokens after the last norm and the projection to the head's width.
    """

    visual_stages: tuple[Array, ...]
    audio_stages: tuple[Array, ...]
    visual: Array
    audio: Array


@flax.struct.dataclass
class LAVISHOutput:
    """Logits [b, answers], and the intermediates of the streams and of the head by name."""

    logits: Array
    streams: Streams
    head: HeadOutput


class Adapter(nnx.Module):
    """What one stream takes from the other.

      L' = L + softmax(L Y^T) Y,   X' = X + g' softmax(X L'^T) L'
      out = g LN(up(relu(down(LN(X')))))

    A new adapter returns zeros, because the gates g and g' start at zero.
    """

    def __init__(self, width: int, config: AdapterConfig, has_gate: bool, rngs: nnx.Rngs):
        hidden, groups = width // config.reduction, config.groups
        self.latents = nnx.Param(jnp.zeros((config.latents, width)))
        self.exchange_gate = nnx.Param(jnp.zeros((1,)))
        self.gate = nnx.Param(jnp.zeros((1,))) if has_gate else None
        self.norm_before = parts.layer_norm(width, rngs)
        self.down = parts.GroupedLinear(width, hidden, groups, rngs)
        self.up = parts.GroupedLinear(hidden, width, groups, rngs)
        self.down_norm = DataNorm(hidden) if config.batch_norm else None
        self.up_norm = DataNorm(width) if config.batch_norm else None
        self.norm_after = parts.layer_norm(width, rngs)

    def __call__(self, x: Array, other: Array) -> Array:
        """[b, n, d] own tokens, [b, m, d] tokens of the other stream -> [b, n, d]."""
        latents = self.latents[...] + parts.exchange(self.latents[...], other)
        x = x + self.exchange_gate[...] * parts.exchange(x, latents)
        x = self.down(self.norm_before(x))
        x = x if self.down_norm is None else self.down_norm(x)
        x = self.up(jax.nn.relu(x))
        x = x if self.up_norm is None else self.up_norm(x)
        x = self.norm_after(x)
        return x if self.gate is None else self.gate[...] * x


class BlockAdapters(nnx.Module):
    """The four adapters of a block: of both streams, beside the attention and beside the MLP."""

    def __init__(self, width: int, config: AdapterConfig, rngs: nnx.Rngs):
        def adapter(has_gate):
            return Adapter(width, config, has_gate, rngs)

        self.audio_first, self.audio_second = (adapter(config.audio_gate) for _ in range(2))
        self.visual_first, self.visual_second = (adapter(True) for _ in range(2))


class LAVISH(nnx.Module):
    """LAVISH as released.

    Differs from the released class: it leaves out the layers that its forward never calls, and the
    tower's classifier. Only `adapters`, the head, and the tower's norms are trained in the release.
    """

    def __init__(self, config: LAVISHConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.swin = SwinV2(config.swin, rngs=rngs)
        self.adapters = nnx.List(
            BlockAdapters(config.swin.width * 2**stage, config.adapter, rngs)
            for stage, depth in enumerate(config.swin.depths)
            for _ in range(depth)
        )
        width = config.head.width
        self.visual_out = parts.linear(self.swin.width_out, width, rngs)
        self.audio_out = parts.linear(self.swin.width_out, width, rngs)
        self.audio = parts.linear(width, width, rngs)
        self.head = grounded_head.GroundedHead(config.head, rngs)

    def adopt(self, grounding: nnx.Module) -> None:
        """Copy the weights of AVST's first training stage, an AVSTGrounding, into this model.

        The first layer of the audio features stays behind, because LAVISH has none. In the release
        these weights belong to VGGish vectors and ResNet-18 maps too.
        """
        grounded_head.adopt(self.head, self.audio, grounding)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> LAVISHOutput:
        """Answer questions and match sounds and frames.

        Args:
          inputs: `question` [b, 14] int32 word ids, 0 = padding; `frames` [b, t, 192, 192, 3],
            uint8 or normalised by `swin_v2.normalise`; `audio` [b, t, 192, 192], filter banks by
            time and mel, normalised (the released class takes three copies of them as channels);
            `negative`, frames of other videos, may be left out.
          rngs: random keys for dropout and `drop_path`; None = none of both.
        """
        streams = self.encode(inputs, rngs)
        head = self.conclude(inputs, streams.visual, streams.audio.mean(-2), rngs)
        return LAVISHOutput(head.logits, streams, head)

    def encode(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> Streams:
        """Run both streams through the tower with its adapters; arguments as in `__call__`."""
        frames = jnp.asarray(inputs['frames'])
        batch, segments = frames.shape[:2]
        sound = jnp.asarray(inputs['audio']).reshape(-1, *self.config.swin.image_sides)
        visual = self.swin.embed(parts.images(frames))
        audio = self.swin.embed(jnp.stack([sound] * 3, axis=-1))
        visual_stages, audio_stages = self._run_stages(visual, audio, rngs)
        visual = self.visual_out(self.swin.norm(visual_stages[-1]))
        audio = self.audio_out(self.swin.norm(audio_stages[-1]))
        visual, audio = (x.reshape(batch, segments, *x.shape[1:]) for x in (visual, audio))
        return Streams(visual_stages, audio_stages, visual, audio)

    def conclude(
        self, inputs: Inputs, visual: Array, audio: Array, rngs: nnx.Rngs | None = None
    ) -> HeadOutput:
        """Run the head on visual maps [b, t, p, d] and mean audio tokens [b, t, d].

        The other arguments are those of `__call__`.
        """
        negative = inputs.get('negative')
        negative = None if negative is None else self._map_without_adapters(jnp.asarray(negative))
        audio = self.audio(jax.nn.relu(audio))
        return self.head(jnp.asarray(inputs['question']), audio, visual, negative, rngs)

    def logits(self, inputs: Inputs) -> Array:
        """Return the logits [b, 42] of the answers; `inputs` as in `__call__`, without dropout."""
        return self({name: x for name, x in inputs.items() if name != 'negative'}).logits

    def _run_stages(self, visual: Array, audio: Array, rngs: nnx.Rngs | None):
        """Run both streams through the tower with adapters; return the tokens of each stage."""
        rates = np.linspace(0, self.config.drop_path, len(self.adapters))
        visual_stages, audio_stages, place = [], [], 0
        for stage in self.swin.stages:
            visual, audio = stage.enter(visual), stage.enter(audio)
            for block in stage.separate():
                adapters, rate = self.adapters[place], rates[place]
                visual, audio = run_block(block, adapters, visual, audio, rate, rngs)
                place += 1
            visual_stages.append(visual)
            audio_stages.append(audio)
        return tuple(visual_stages), tuple(audio_stages)

    def _map_without_adapters(self, frames: Array) -> Array:
        """Return maps [b, t, p, d] of frames of other videos; no gradient reaches the tower."""
        tokens = jax.lax.stop_gradient(self.swin(parts.images(frames)).tokens)
        x = self.visual_out(tokens)
        return x.reshape(*frames.shape[:2], *x.shape[1:])


def run_block(
    block: tuple[swin_v2.SwinV2Block, Array, bool],
    adapters: BlockAdapters,
    visual: Array,
    audio: Array,
    rate: float,
    rngs: nnx.Rngs | None,
) -> tuple[Array, Array]:
    """Run one block on both streams, with the adapters beside its two halves.

    Args:
      block: an element of hierarchy.Stage.separate().
      adapters: the block's adapters.
      visual, audio: [b, n, d].
      rate, rngs: of stochastic depth, see parts.drop_path.
    """
    layer, *options = block

    def halves(tokens, half, *given):
        return parts.drop_path(tokens, half(tokens, *given), rate, rngs)

    to_audio, to_visual = adapters.audio_first(audio, visual), adapters.visual_first(visual, audio)
    visual = halves(visual, layer.attend, *options) + to_visual
    audio = halves(audio, layer.attend, *options) + to_audio
    to_audio, to_visual = (
        adapters.audio_second(audio, visual),
        adapters.visual_second(visual, audio),
    )
    return halves(visual, layer.transform) + to_visual, halves(audio, layer.transform) + to_audio


def example(config: LAVISHConfig, batch: int, seed: int, segments: int = SEGMENTS) -> dict:
    """Return random inputs of LAVISH by name; see `LAVISH.__call__`."""
    rng = np.random.default_rng(seed)
    shape = batch, segments, *config.swin.image_sides
    return {
        'question': rng.integers(0, config.head.vocabulary, (batch, train_words.LENGTH), np.int32),
        'frames': parts.normal_example((*shape, 3), rng),
        'audio': parts.normal_example(shape, rng),
        'negative': parts.normal_example((*shape, 3), rng),
    }
