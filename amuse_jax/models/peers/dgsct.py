"""DG-SCT (Duan et al. 2023): frozen Swin-V2 and HTS-AT that guide each other through adapters.

model = DGSCT(DGSCTConfig(), rngs=nnx.Rngs(0))
logits = model.logits(example(DGSCTConfig(), batch=1, seed=0))
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
from amuse_jax.models.htsat import HTSAT, HTSATConfig
from amuse_jax.models.peers import disturb, grounded_head, parts
from amuse_jax.models.peers.disturb import Disturbances
from amuse_jax.models.peers.dual_guided_adapter import AdapterConfig, DualGuidedAdapter
from amuse_jax.models.peers.grounded_head import HeadConfig, HeadOutput
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config

Inputs = Mapping[str, Array]
SEGMENTS = 10
FRAMES = 1001  # of a log-mel of 10 s: 320,000 samples, hop 320


@dataclasses.dataclass(frozen=True)
class DGSCTConfig:
    """Sizes and switches of DG-SCT.

    Attributes:
      visual, audio: sizes of the towers. In every stage the visual depth is a multiple of the audio
        depth.
      head: sizes of the answer head; its width is that of the visual tower's last stage.
      adapter: sizes of the adapters.
      disturbances: what the released training does to its frozen towers.
    """

    visual: SwinV2Config = swin_v2.named('swinv2_large_window12_192')
    audio: HTSATConfig = HTSATConfig(256, 4, 96, (2, 2, 6, 2), (4, 8, 16, 32), 8)
    head: HeadConfig = HeadConfig(1536)
    adapter: AdapterConfig = AdapterConfig()
    disturbances: Disturbances = Disturbances()


@flax.struct.dataclass
class DGSCTOutput:
    """Logits, and the intermediates by name.

    Attributes:
      logits: [b, answers].
      visual_stages, audio_stages: tokens [b * t, n_i, d_i] after the blocks of each stage.
      attention: [b * t, n_4] weights of the last audio tokens.
      visual: [b, t, p, d] map that the head takes.
      audio: [b, t, d] vectors that the head takes.
      head: intermediates of the head.
    """

    logits: Array
    visual_stages: tuple[Array, ...]
    audio_stages: tuple[Array, ...]
    attention: Array
    visual: Array
    audio: Array
    head: HeadOutput


class PairAdapters(nnx.Module):
    """The four adapters of a pair of blocks: of both streams, after the attention and after all.

    Args:
      visual, audio: number of tokens and channels of each stream.
      config: sizes of the adapters.
      rngs: random keys of the parameters.
    """

    def __init__(
        self,
        visual: tuple[int, int],
        audio: tuple[int, int],
        config: AdapterConfig,
        rngs: nnx.Rngs,
    ):
        def adapter(own, other, has_gate):
            return DualGuidedAdapter(own, other, config, has_gate, rngs)

        gated = config.audio_gate
        self.audio_first, self.audio_second = (adapter(audio, visual, gated) for _ in range(2))
        self.visual_first, self.visual_second = (adapter(visual, audio, True) for _ in range(2))


class DGSCT(nnx.Module):
    """DG-SCT as released for MUSIC-AVQA; it has no temporal gate, unlike the paper.

    Each audio block is paired with one visual block; where a stage has more visual blocks, the
    others run without adapters. Differs from the released class: it leaves out the layers that its
    forward never calls, and takes log-mels where that takes waveforms.
    """

    def __init__(self, config: DGSCTConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.visual = SwinV2(config.visual, rngs=rngs)
        self.audio = HTSAT(config.audio, rngs=rngs)
        pairs = []
        for i, (depths, stages) in enumerate(
            zip(
                zip(config.visual.depths, config.audio.depths, strict=True),
                zip(self.visual.stages, self.audio.stages),
            )
        ):
            if depths[0] % depths[1]:
                raise ValueError(
                    f'stage {i + 1}: {depths[0]} visual blocks are no multiple of the {depths[1]} '
                    'audio blocks'
                )
            visual, audio = (
                (stage.window_map.size[0] * stage.window_map.size[1], tower.width * 2**i)
                for stage, tower in zip(stages, (config.visual, config.audio))
            )
            pairs += [PairAdapters(visual, audio, config.adapter, rngs) for _ in range(depths[1])]
        self.adapters = nnx.List(pairs)
        self.projection = grounded_head.AudioProjection(
            self.audio.width_out, config.head.width, rngs
        )
        self.head = grounded_head.GroundedHead(config.head, rngs)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> DGSCTOutput:
        """Answer questions and match sounds and frames.

        Args:
          inputs: `question` [b, 14] int32 word ids, 0 = padding; `frames` [b, t, 192, 192, 3],
            uint8 or normalised by `swin_v2.normalise`; `audio` [b, t, 1001, 64], log-mels in dB of
            one second of sound each, repeated to 10 s (the released class takes the waveforms);
            `negative`, frames of other videos, may be left out.
          rngs: random keys for dropout and the disturbances; None = none of both.
        """
        frames, log_mel = jnp.asarray(inputs['frames']), jnp.asarray(inputs['audio'])
        batch, segments = frames.shape[:2]
        log_mel = log_mel.reshape(-1, *log_mel.shape[2:])
        sound = disturb.normalised(self.audio.mel_norm, log_mel, self.config.disturbances, rngs)
        visual_stages, audio_stages, attention = self._run_stages(
            self.visual.embed(parts.images(frames)), self.audio.embed_normalised(sound), rngs
        )
        visual = self.visual.norm(visual_stages[-1])
        visual = visual.reshape(batch, segments, *visual.shape[1:])
        audio = jnp.einsum('bn,bnd->bd', attention, audio_stages[-1])
        audio = self.projection(audio.reshape(batch, segments, -1))
        negative = inputs.get('negative')
        if negative is not None:
            negative = self.visual(parts.images(jnp.asarray(negative))).tokens
            negative = jax.lax.stop_gradient(negative.reshape(visual.shape))
        head = self.head(jnp.asarray(inputs['question']), audio, visual, negative, rngs)
        return DGSCTOutput(head.logits, visual_stages, audio_stages, attention, visual, audio, head)

    def logits(self, inputs: Inputs) -> Array:
        """Return the logits [b, 42] of the answers; `inputs` as in `__call__`, without dropout."""
        return self({name: x for name, x in inputs.items() if name != 'negative'}).logits

    def _run_stages(self, visual: Array, audio: Array, rngs: nnx.Rngs | None):
        """Run both towers with adapters; return the tokens of each stage and the last map."""
        rate = self.config.disturbances.drop_path
        visual_rates = iter(np.linspace(0, rate, sum(self.config.visual.depths)))
        audio_rates = iter(np.linspace(0, rate, len(self.adapters)))
        pairs, attention = iter(self.adapters), None
        visual_stages, audio_stages = [], []
        for visual_stage, audio_stage in zip(self.visual.stages, self.audio.stages):
            visual, audio = visual_stage.enter(visual), audio_stage.enter(audio)
            visual_blocks = visual_stage.separate()
            share = visual_stage.depth // audio_stage.depth
            for place, audio_block in enumerate(audio_stage.separate()):
                *alone, paired = visual_blocks[place * share : (place + 1) * share]
                for block in alone:
                    visual = parts.run_block(block, visual, next(visual_rates), rngs)
                visual, audio, attention = run_pair(
                    Block(*paired, next(visual_rates)),
                    Block(*audio_block, next(audio_rates)),
                    next(pairs),
                    (visual, audio),
                    rngs,
                )
            visual_stages.append(visual)
            audio_stages.append(audio)
        return tuple(visual_stages), tuple(audio_stages), attention


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of a tower: an element of hierarchy.Stage.separate() and its stochastic depth."""

    layer: nnx.Module
    bias: Array
    shifted: bool
    rate: float


def run_pair(
    visual_block: Block,
    audio_block: Block,
    adapters: PairAdapters,
    tokens: tuple[Array, Array],
    rngs: nnx.Rngs | None,
) -> tuple[Array, Array, Array]:
    """Run a visual and an audio block with their adapters.

    The whole audio block runs beside the visual block's attention.

    Args:
      visual_block, audio_block: the blocks.
      adapters: their adapters.
      tokens: visual [b, n, d] and audio [b, m, c].
      rngs: random keys for stochastic depth; None = none.
    Returns:
      The tokens of both streams, and the map [b, m] of the second audio adapter.
    """
    visual, audio = tokens
    to_audio, _ = adapters.audio_first(audio, visual)
    to_visual, _ = adapters.visual_first(visual, audio)
    block = visual_block
    attended = block.layer.attend(visual, block.bias, block.shifted)
    visual = parts.drop_path(visual, attended, block.rate, rngs) + to_visual
    whole = audio_block.layer, audio_block.bias, audio_block.shifted
    audio = parts.run_block(whole, audio, audio_block.rate, rngs) + to_audio
    to_audio, attention = adapters.audio_second(audio, visual)
    to_visual, _ = adapters.visual_second(visual, audio)
    visual = parts.drop_path(visual, block.layer.transform(visual), block.rate, rngs) + to_visual
    return visual, audio + to_audio, attention


def example(
    config: DGSCTConfig, batch: int, seed: int, segments: int = SEGMENTS, frames: int = FRAMES
) -> dict:
    """Return random inputs of DG-SCT by name; see `DGSCT.__call__`."""
    rng = np.random.default_rng(seed)
    images = batch, segments, *config.visual.image_sides, 3
    return {
        'question': rng.integers(0, config.head.vocabulary, (batch, train_words.LENGTH), np.int32),
        'frames': parts.normal_example(images, rng),
        'audio': 10 * parts.normal_example((batch, segments, frames, config.audio.mels), rng) - 30,
        'negative': parts.normal_example(images, rng),
    }
