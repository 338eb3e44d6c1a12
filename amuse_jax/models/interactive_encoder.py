"""The interactive encoder: three towers that exchange tokens (paper 3.1, Fig. 2a).

The exchange takes place in stage 3 of Swin-V2 and HTS-AT. It has R rounds; each runs an equal share
of the visual blocks, the audio blocks and the text layers, and then the adapters (Eq. 1-3). The
visual and audio layers before the first adapters do not depend on the question. They run once per
video (`question_free`).

Axes: V videos, Q questions, T segments, n tokens, N words, R rounds.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import hierarchy, remat, swin_v2
from amuse_jax.models.adapters import AdapterConfig, Adapters
from amuse_jax.models.htsat import HTSAT, HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config
from amuse_jax.models.text import TextConfig, TextTower


@dataclasses.dataclass(frozen=True)
class InteractiveConfig:
    """Sizes of the interactive encoder.

    Attributes:
      visual, audio, text: sizes of the towers; `text.vocab_size` may be 0, all other sizes must be
        set.
      rounds: R; must divide the numbers of visual blocks and audio blocks in stage 3 and of text
        layers.
      width, heads, mlp_width: sizes of the adapters, see AdapterConfig.
      remat_policy: what each layer and each adapter keeps for its gradient, a key of
        remat.POLICIES.
    """

    visual: SwinV2Config
    audio: HTSATConfig
    text: TextConfig
    rounds: int
    width: int
    heads: int
    mlp_width: int
    remat_policy: str = 'everything'


@flax.struct.dataclass
class QuestionFree:
    """The tokens that enter the first adapters; they do not depend on the question.

    Attributes:
      visual: [V, T, n_v, d_v].
      audio: [V, T, n_a, d_a].
    """

    visual: jax.Array
    audio: jax.Array


class InteractiveEncoder(nnx.Module):
    """Swin-V2 for frames, HTS-AT for sound, BERT for words, and adapters between them."""

    def __init__(self, config: InteractiveConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        for name, depth in (
            ('visual blocks of stage 3', config.visual.depths[2]),
            ('audio blocks of stage 3', config.audio.depths[2]),
            ('text layers', config.text.depth),
        ):
            if depth % config.rounds:
                raise ValueError(
                    f'{depth} {name} do not divide into {config.rounds} rounds of adapters; '
                    'expected a multiple (model.adapters.rounds)'
                )
        self.rounds, self.remat_policy = config.rounds, config.remat_policy
        self.visual = SwinV2(
            config.visual, rngs=rngs, dtype=dtype, remat_policy=config.remat_policy
        )
        self.audio = HTSAT(config.audio, rngs=rngs, dtype=dtype, remat_policy=config.remat_policy)
        self.text = TextTower(config.text, rngs=rngs, dtype=dtype, remat_policy=config.remat_policy)
        adapters = AdapterConfig(
            visual=self.visual.stage3_width,
            audio=self.audio.stage3_width,
            text=config.text.width,
            width=config.width,
            heads=config.heads,
            mlp_width=config.mlp_width,
        )
        self.adapters = nnx.vmap(lambda rngs: Adapters(adapters, rngs=rngs, dtype=dtype))(
            rngs.split(config.rounds)
        )

    def question_free(self, frames: jax.Array, log_mel: jax.Array) -> QuestionFree:
        """Run all visual and audio layers before the first adapters, once per video.

        Args:
          frames: [V, T, S, S, 3] uint8 RGB.
          log_mel: [V, T, F, M] dB.
        """
        visual = self.visual.stem(swin_v2.normalise(_fold(frames, 2)))
        audio = self.audio.stem(_fold(log_mel, 2))
        visual = self._run(self.visual, visual, 0, 1)
        audio = self._run(self.audio, audio, 0, 1)
        lead = frames.shape[:2]
        return QuestionFree(
            visual.reshape(*lead, *visual.shape[1:]), audio.reshape(*lead, *audio.shape[1:])
        )

    def closed(self, question_free: QuestionFree) -> tuple[jax.Array, jax.Array]:
        """Return the pooled streams of the towers with closed adapters.

        A closed adapter adds nothing to the tokens, so the streams do not depend on the question.

        Returns:
          visual [V, T, d] and audio [V, T, d].
        """
        streams = []
        for tower, tokens in (
            (self.visual, question_free.visual),
            (self.audio, question_free.audio),
        ):
            rest = self._run(tower, _fold(tokens, 2), 1, self.rounds)
            streams.append(hierarchy.pool(tower.tail(rest)).reshape(*tokens.shape[:2], -1))
        return tuple(streams)

    def __call__(
        self,
        question_free: QuestionFree,
        words: jax.Array,
        word_mask: jax.Array,
        segment_mask: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Run the rounds and the rest of the towers for every question.

        Args:
          question_free: result of the method of the same name.
          words: [V, Q, N] token ids.
          word_mask: [V, Q, N] bool, False = padding.
          segment_mask: [V, T] bool, False = the video has no such segment.
        Returns:
          The pooled streams visual [V, Q, T, d] and audio [V, Q, T, d], and the text tokens
          [V, Q, N, d_t].
        """
        lead, mask = words.shape[:2], _fold(word_mask, 2)
        text = self.text.embed(_fold(words, 2), mask)
        text_def, layers = self.text.layers()
        text_rounds = jax.tree.map(
            lambda leaf: leaf.reshape(self.rounds, -1, *leaf.shape[1:]), layers
        )
        adapters_def, adapters = nnx.split(self.adapters)

        def adapt(adapter, *tokens):
            return nnx.merge(adapters_def, adapter)(*tokens, word_mask, segment_mask)

        def exchange(visual, audio, text, layers, adapter, in_scan=True):
            text = self.text.run_layers(text_def, layers, text, mask)
            text = text.reshape(*lead, *text.shape[1:])
            run = remat.rematerialise(adapt, self.remat_policy, in_scan)
            visual, audio, text = run(adapter, visual, audio, text)
            return visual, audio, _fold(text, 2)

        def at(state, index):
            return jax.tree.map(lambda leaf: leaf[index], state)

        # The first round is not in the scan: a video's questions share its visual and audio tokens.
        visual, audio, text = exchange(
            question_free.visual[:, None], question_free.audio[:, None], text,
            at(text_rounds, 0), at(adapters, 0), in_scan=False,
        )  # fmt: skip
        shapes = visual.shape, audio.shape

        def run(carry, scanned):
            visual, audio, text = carry
            index, layers, adapter = scanned
            visual = self._round(self.visual, _fold(visual, 3), index)
            audio = self._round(self.audio, _fold(audio, 3), index)
            carry = exchange(
                visual.reshape(shapes[0]), audio.reshape(shapes[1]), text, layers, adapter
            )
            return carry, None

        later = at((text_rounds, adapters), slice(1, None))
        rounds = (jnp.arange(1, self.rounds), *later)
        (visual, audio, text), _ = jax.lax.scan(run, (visual, audio, text), rounds)
        return (
            hierarchy.pool(self.visual.tail(_fold(visual, 3))).reshape(*shapes[0][:3], -1),
            hierarchy.pool(self.audio.tail(_fold(audio, 3))).reshape(*shapes[1][:3], -1),
            text.reshape(*lead, *text.shape[1:]),
        )

    def _round(self, tower, tokens: jax.Array, index: jax.Array) -> jax.Array:
        """Run the tower's blocks of one round: [b, n, d] -> [b, n, d]. `index` may be traced."""
        graphdef, state = tower.stage3_blocks()
        count = len(jax.tree.leaves(state)[0]) // self.rounds
        return tower.stages[2].run_slice(graphdef, state, tokens, index * count, count)

    def _run(self, tower, tokens: jax.Array, first: int, last: int) -> jax.Array:
        """Run the tower's blocks of rounds first..last - 1 without adapters: [b, n, d]."""
        graphdef, state = tower.stage3_blocks()
        step = len(jax.tree.leaves(state)[0]) // self.rounds
        if first == last:
            return tokens
        blocks = jax.tree.map(lambda leaf: leaf[first * step : last * step], state)
        return tower.run_stage3(graphdef, blocks, tokens, first * step)


def _fold(x: jax.Array, axes: int) -> jax.Array:
    """Join the first `axes` axes."""
    return x.reshape(-1, *x.shape[axes:])
