"""LSTTA (Liu et al. 2023), as its paper describes it: no code was ever released.

model = LSTTA(LSTTAConfig(), rngs=nnx.Rngs(0))
logits = model.logits(example(LSTTAConfig(), batch=1, seed=0))

Described: three frozen encoders; between their blocks, adapters in which words weigh the segments
in time (LTSF), and the other two modalities enter sound and sight through latent tokens (STSI:
VL2A and AL2V). Words are not changed.

Chosen here, because the paper does not say it, or names encoders that nobody has published:
- the towers are Swin-V2, HTS-AT and BERT in place of CLIP's ViT-L and its 24-layer text encoder and
  a w2v-Conformer. (The paper's own ablation has a Swin.) As in Amuse, the blocks of their third
  stages make rounds; the adapters stand between the rounds;
- where widths differ from the adapters', each block has a linear layer in and one out;
- the segments are those of the other peers, 10 in place of 32;
- D channels become one score per segment by a mean over the channels;
- VL2A and AL2V each have latents and an adapter of their own in every block, and no biases: with 23
  blocks of 1024 channels that is 75.4 of the 83 million parameters that the paper counts;
- all gates and the outer projections of the adapters start at zero: a new model computes what its
  towers compute;
- in Eq. 8 the latents of VL2A attend to words and frames, as the text says, not to sounds;
- the head: the question's first token attends over the segments' mean sight and mean sound, as in
  AVST without its spatial grounding.
"""

import dataclasses
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from amuse_jax.models import hierarchy, swin_v2
from amuse_jax.models.htsat import HTSAT, HTSATConfig
from amuse_jax.models.peers import parts
from amuse_jax.models.peers.grounded_head import ANSWERS
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config
from amuse_jax.models.text import TextConfig, TextTower

Inputs = Mapping[str, Array]
SEGMENTS = 10
FRAMES = 601  # of a log-mel of 6 s
WORDS = 32
BERT_WORDS = 30522


@dataclasses.dataclass(frozen=True)
class LSTTAConfig:
    """Sizes of LSTTA.

    Attributes:
      visual, audio, text: sizes of the towers.
      rounds: parts that the third stages and the text tower are cut into; one more than the
        adapters' blocks.
      width: channels of the adapters.
      hidden: hidden channels of an adapter's MLP.
      latents: latent tokens.
      heads, dropout: of the head's attention.
      answers: number of answers.
    """

    visual: SwinV2Config = swin_v2.named('swinv2_large_window12_192')
    audio: HTSATConfig = HTSATConfig(256, 4, 96, (2, 2, 6, 2), (4, 8, 16, 32), 8)
    text: TextConfig = TextConfig(BERT_WORDS, WORDS)
    rounds: int = 6
    width: int = 768
    hidden: int = 512
    latents: int = 64
    heads: int = 4
    dropout: float = 0.1
    answers: int = ANSWERS


@flax.struct.dataclass
class LSTTAOutput:
    """Logits, and the intermediates by name.

    Attributes:
      logits: [b, answers].
      question: [b, d] first token of the text tower.
      segments: [b, blocks, t] weights of the segments in every block of adapters.
      visual, audio: [b, t, d] mean tokens of each segment.
      attended_visual, attended_audio: [b, d] what the question found over time.
    """

    logits: Array
    question: Array
    segments: Array
    visual: Array
    audio: Array
    attended_visual: Array
    attended_audio: Array


class Adapter(nnx.Module):
    """X + W_up relu(W_down X), without biases; W_up starts at zero."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.down = parts.linear(width, hidden, rngs, use_bias=False)
        self.up = parts.linear(hidden, width, rngs, use_bias=False)
        self.up.kernel[...] = jnp.zeros_like(self.up.kernel[...])

    def __call__(self, x: Array) -> Array:
        """[..., d] -> [..., d]."""
        return x + self.up(jax.nn.relu(self.down(x)))


class Injection(nnx.Module):
    """STSI: a modality Z receives the others, Y, through latents q.

    q' = q + tanh(g) softmax(q Y^T) Y,   out = Adapter(Z + tanh(g') softmax(S Z q'^T) q')
    """

    def __init__(self, config: LSTTAConfig, rngs: nnx.Rngs):
        draw = nnx.initializers.normal(0.02)
        self.latents = nnx.Param(draw(rngs.params(), (config.latents, config.width)))
        self.gather_gate, self.gate = (nnx.Param(jnp.zeros(())) for _ in range(2))
        self.adapter = Adapter(config.width, config.hidden, rngs)

    def __call__(self, x: Array, others: Array, segments: Array) -> Array:
        """Inject the others.

        Args:
          x: [b, t, n, d].
          others: [b, t, m, d].
          segments: [b, t] weights of the segments.
        Returns:
          [b, t, n, d].
        """
        latents = cross(self.latents[...], others, self.gather_gate[...])
        return self.adapter(cross(x, latents, self.gate[...], segments[..., None, None]))


class Bridge(nnx.Module):
    """Linear layers between a tower's width and the adapters'; none where the widths are equal."""

    def __init__(self, tower_width: int, width: int, rngs: nnx.Rngs):
        differ = tower_width != width
        self.into = parts.linear(tower_width, width, rngs) if differ else None
        self.back = parts.linear(width, tower_width, rngs, use_bias=False) if differ else None

    def enter(self, tokens: Array) -> Array:
        """[..., tower width] -> [..., width]."""
        return tokens if self.into is None else self.into(tokens)

    def leave(self, tokens: Array, before: Array, after: Array) -> Array:
        """Return the tower's tokens after the adapters turned `before` into `after`."""
        return after if self.back is None else tokens + self.back(after - before)


class Block(nnx.Module):
    """One block of adapters: LTSF weighs the segments, STSI exchanges sight, sound and words.

    Args:
      config: the sizes.
      widths: channels of the visual, audio and text tokens in their towers.
      rngs: random keys of the parameters.
    """

    def __init__(self, config: LSTTAConfig, widths: tuple[int, int, int], rngs: nnx.Rngs):
        self.see_gate, self.hear_gate = (nnx.Param(jnp.zeros(())) for _ in range(2))
        self.weigh = Adapter(config.width, config.hidden, rngs)
        self.to_audio, self.to_visual = (Injection(config, rngs) for _ in range(2))
        self.visual, self.audio, self.text = (Bridge(width, config.width, rngs) for width in widths)

    def __call__(self, visual: Array, audio: Array, text: Array) -> tuple[Array, Array, Array]:
        """Run the block.

        Args:
          visual, audio: [b, t, n, d_v] and [b, t, m, d_a].
          text: [b, l, d_t], the same words for every segment.
        Returns:
          visual and audio of the same shapes, and the weights of the segments [b, t].
        """
        sight, sound, words = (
            bridge.enter(x)
            for bridge, x in ((self.visual, visual), (self.audio, audio), (self.text, text))
        )
        words = jnp.broadcast_to(words[:, None], (*sight.shape[:2], *words.shape[1:]))
        seen = cross(words, sight, self.see_gate[...])
        heard = cross(words, sound, self.hear_gate[...])
        scores = self.weigh(jnp.concatenate([seen, heard], axis=2).mean(2)).mean(-1)
        segments = jax.nn.softmax(scores, axis=-1)
        new_sight = self.to_visual(sight, jnp.concatenate([sound, words], axis=2), segments)
        new_sound = self.to_audio(sound, jnp.concatenate([sight, words], axis=2), segments)
        return (
            self.visual.leave(visual, sight, new_sight),
            self.audio.leave(audio, sound, new_sound),
            segments,
        )


def cross(x: Array, other: Array, gate: Array, strength: Array | float = 1.0) -> Array:
    """Return X + tanh(gate) softmax(strength * X Y^T) Y, the paper's CMA; see parts.exchange."""
    return x + jnp.tanh(gate) * parts.exchange(x, other, strength)


class LSTTA(nnx.Module):
    """LSTTA on our towers; the module's docstring lists what was chosen."""

    def __init__(self, config: LSTTAConfig, *, rngs: nnx.Rngs):
        for name, depth in (
            ('visual blocks of stage 3', config.visual.depths[2]),
            ('audio blocks of stage 3', config.audio.depths[2]),
            ('text layers', config.text.depth),
        ):
            if depth % config.rounds:
                raise ValueError(f'{depth} {name} do not divide into {config.rounds} rounds')
        self.config, width = config, config.width
        self.visual = SwinV2(config.visual, rngs=rngs)
        self.audio = HTSAT(config.audio, rngs=rngs)
        self.text = TextTower(config.text, rngs=rngs)
        widths = self.visual.stage3_width, self.audio.stage3_width, config.text.width
        self.blocks = nnx.List(Block(config, widths, rngs) for _ in range(config.rounds - 1))
        self.visual_out = parts.linear(self.visual.width_out, width, rngs)
        self.audio_out = parts.linear(self.audio.width_out, width, rngs)
        self.question = parts.linear(config.text.width, width, rngs)
        self.attend_visual, self.attend_audio = (
            parts.AttendAndFeed(width, config.heads, config.dropout, rngs) for _ in range(2)
        )
        self.fuse = parts.linear(2 * width, width, rngs)
        self.answer = parts.linear(width, config.answers, rngs)

    def __call__(self, inputs: Inputs, rngs: nnx.Rngs | None = None) -> LSTTAOutput:
        """Answer questions.

        Args:
          inputs: `frames` [b, t, 192, 192, 3], uint8 or normalised by `swin_v2.normalise`; `audio`
            [b, t, 601, 64], log-mels in dB; `words` [b, n] int32 ids of word pieces, [CLS] first;
            `mask` [b, n] bool, False = padding. Both may be [b, q, n], q questions about each
            video; the b of all outputs is then b * q, with the questions of a video in a row.
          rngs: random keys for dropout; None = no dropout.
        """
        words, mask = (jnp.asarray(inputs[name]) for name in ('words', 'mask'))
        words, mask = (x.reshape(-1, x.shape[-1]) for x in (words, mask))
        visual, audio, texts, segments = self._run_towers(inputs, words, mask)
        asked = self.question(texts[-1][:, 0])
        attended_visual, _ = self.attend_visual(asked[:, None], visual, rngs)
        attended_audio, _ = self.attend_audio(asked[:, None], audio, rngs)
        attended_visual, attended_audio = attended_visual[:, 0], attended_audio[:, 0]
        streams = attended_audio + audio.mean(1), attended_visual + visual.mean(1)
        fused = self.fuse(jnp.tanh(jnp.concatenate(streams, axis=-1)))
        return LSTTAOutput(
            logits=self.answer(jnp.tanh(fused * asked)),
            question=texts[-1][:, 0],
            segments=segments,
            visual=visual,
            audio=audio,
            attended_visual=attended_visual,
            attended_audio=attended_audio,
        )

    def logits(self, inputs: Inputs) -> Array:
        """Return the logits [b, 42] of the answers; `inputs` as in `__call__`, without dropout."""
        return self(inputs).logits

    def _run_towers(self, inputs: Inputs, words: Array, mask: Array):
        """Return visual and audio vectors [b, t, d], the words after each round, the weights."""
        frames, log_mel = jnp.asarray(inputs['frames']), jnp.asarray(inputs['audio'])
        lead, rounds = (len(words), frames.shape[1]), self.config.rounds
        texts = self._read(words, mask)
        # Nothing before the first adapters depends on the question, so this runs once per video.
        visual, audio = (
            jnp.repeat(x.reshape(*frames.shape[:2], *x.shape[1:]), len(words) // len(frames), 0)
            for x in (
                self.visual.stem(parts.images(frames)),
                self.audio.stem(log_mel.reshape(-1, *log_mel.shape[2:])),
            )
        )
        visual, audio = (x.reshape(-1, *x.shape[2:]) for x in (visual, audio))
        sight, sound = self.visual.stages[2], self.audio.stages[2]
        counts, weights = (sight.depth // rounds, sound.depth // rounds), []
        for place in range(rounds):
            if place:
                visual, audio, segments = self.blocks[place - 1](
                    visual.reshape(*lead, *visual.shape[1:]),
                    audio.reshape(*lead, *audio.shape[1:]),
                    texts[place - 1],
                )
                visual, audio = (x.reshape(-1, *x.shape[2:]) for x in (visual, audio))
                weights.append(segments)
            visual, audio = (
                stage.run(x, place * count, (place + 1) * count)
                for stage, x, count in zip((sight, sound), (visual, audio), counts)
            )
        visual, audio = (
            out(hierarchy.pool(tower.tail(x)).reshape(*lead, -1))
            for out, tower, x in (
                (self.visual_out, self.visual, visual),
                (self.audio_out, self.audio, audio),
            )
        )
        return visual, audio, texts, jnp.stack(weights, axis=1)

    def _read(self, words: Array, mask: Array) -> list[Array]:
        """Return the words after each round [b, n, d_t]; nothing changes them but their tower."""
        tokens, texts = self.text.embed(words, mask), []
        share = self.config.text.depth // self.config.rounds
        for place, layer in enumerate(self.text.unrolled()):
            tokens = layer(tokens, mask)
            if (place + 1) % share == 0:
                texts.append(tokens)
        return texts


def example(
    config: LSTTAConfig, batch: int, seed: int, segments: int = SEGMENTS, frames: int = FRAMES
) -> dict:
    """Return random inputs of LSTTA by name; see `LSTTA.__call__`."""
    rng = np.random.default_rng(seed)
    words = batch, config.text.max_words
    images = batch, segments, *config.visual.image_sides, 3
    length = rng.integers(2, config.text.max_words + 1, (batch, 1))
    return {
        'frames': parts.normal_example(images, rng),
        'audio': 10 * parts.normal_example((batch, segments, frames, config.audio.mels), rng) - 30,
        'words': rng.integers(0, config.text.vocab_size, words, np.int32),
        'mask': np.arange(config.text.max_words) < length,
    }
