"""The interactive encoder: three towers that exchange tokens (paper 3.1, Fig. 2a).

The exchange takes place in stage 3 of Swin-V2 and HTS-AT. It has R rounds; each runs an equal share
of the visual blocks, the audio blocks and the text layers, and then the adapters (Eq. 1-3). The
visual and audio layers before the first adapters do not depend on the question. They run once per
video (`question_free`).

Axes: V videos, Q questions, T segments, n tokens, N words, R rounds.
"""

import dataclasses
import operator

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
        visual = self._run_rounds(self.visual, visual, 0, 1)
        audio = self._run_rounds(self.audio, audio, 0, 1)
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
            rest = self._run_rounds(tower, _fold(tokens, 2), 1, self.rounds)
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
        # In the first round a video's questions share its visual and audio tokens.
        visual, audio = question_free.visual[:, None], question_free.audio[:, None]
        text = self.text.embed(_fold(words, 2), mask)
        visual_rounds, audio_rounds, text_rounds = (
            self._split_into_rounds(tower.unrolled())
            for tower in (self.visual.stages[2], self.audio.stages[2], self.text)
        )
        graphdef, state = nnx.split(self.adapters)
        adapters = jax.vmap(lambda state: nnx.merge(graphdef, state).weights())(state)

        def adapt(adapter, *tokens):
            return adapter(*tokens, word_mask, segment_mask)

        adapt = remat.rematerialise(adapt, self.remat_policy, in_scan=False)
        for index in range(self.rounds):
            if index:
                visual = _run_blocks(visual_rounds[index], visual)
                audio = _run_blocks(audio_rounds[index], audio)
            for run_layer in text_rounds[index]:
                text = run_layer(text, mask)
            adapter = jax.tree.map(operator.itemgetter(index), adapters)
            visual, audio, text = adapt(
                adapter, visual, audio, text.reshape(*lead, *text.shape[1:])
            )
            text = _fold(text, 2)
        return (
            hierarchy.pool(self.visual.tail(_fold(visual, 3))).reshape(*visual.shape[:3], -1),
            hierarchy.pool(self.audio.tail(_fold(audio, 3))).reshape(*audio.shape[:3], -1),
            text.reshape(*lead, *text.shape[1:]),
        )

    def _split_into_rounds(self, layers: list) -> list[list]:
        count = len(layers) // self.rounds
        return [layers[first : first + count] for first in range(0, len(layers), count)]

    def _run_rounds(self, tower, tokens: jax.Array, first: int, last: int) -> jax.Array:
        """Run the tower's blocks of rounds first..last - 1 without adapters: [b, n, d]."""
        stage = tower.stages[2]
        count = stage.depth // self.rounds
        return stage.run(tokens, first * count, last * count)


def _run_blocks(blocks: list, tokens: jax.Array) -> jax.Array:
    """Run a round's blocks for every question: [V, Q, T, n, d] -> [V, Q, T, n, d]."""
    x = _fold(tokens, 3)
    for run_block in blocks:
        x = run_block(x)
    return x.reshape(tokens.shape)


def _fold(x: jax.Array, axes: int) -> jax.Array:
    """Join the first `axes` axes."""
    return x.reshape(-1, *x.shape[axes:])
