"""Three towers that exchange tokens while they run (paper 3.1, Fig. 2a).

The towers meet in stage 3 of Swin-V2 and HTS-AT. A round is a share of the visual blocks, of the
audio blocks and of the text layers, then the adapters (Eq. 1-3). The first round's visual and audio
blocks see no question yet; they and everything before them run once per video (`front`).

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
      visual, audio, text: of the towers; text may lack nothing but its vocabulary.
      rounds: R; divides the visual and audio blocks of stage 3 and the text layers.
      width, heads, mlp_width: of the adapters.
      kept: of remat.POLICIES, of each layer and each adapter for its gradient.
    """

    visual: SwinV2Config
    audio: HTSATConfig
    text: TextConfig
    rounds: int
    width: int
    heads: int
    mlp_width: int
    kept: str = 'everything'


@flax.struct.dataclass
class Front:
    """What the question-free part leaves: the tokens that enter the first adapters.

    Attributes:
      visual: [V, T, n_v, d_v].
      audio: [V, T, n_a, d_a].
    """

    visual: jax.Array
    audio: jax.Array


class InteractiveEncoder(nnx.Module):
    """Swin-V2 over pictures, HTS-AT over sound, BERT over words, and adapters between them."""

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
        self.rounds, self.kept = config.rounds, config.kept
        self.visual = SwinV2(config.visual, rngs=rngs, dtype=dtype, kept=config.kept)
        self.audio = HTSAT(config.audio, rngs=rngs, dtype=dtype, kept=config.kept)
        self.text = TextTower(config.text, rngs=rngs, dtype=dtype, kept=config.kept)
        adapters = AdapterConfig(
            visual=self.visual.width_meeting,
            audio=self.audio.width_meeting,
            text=config.text.width,
            width=config.width,
            heads=config.heads,
            mlp_width=config.mlp_width,
        )
        self.adapters = nnx.vmap(lambda rngs: Adapters(adapters, rngs=rngs, dtype=dtype))(
            rngs.split(config.rounds)
        )

    def front(self, frames: jax.Array, log_mel: jax.Array) -> Front:
        """Everything before the first adapters, once per video.

        Args:
          frames: [V, T, S, S, 3] uint8 RGB.
          log_mel: [V, T, F, M] dB.
        """
        visual = self.visual.stem(swin_v2.normalise(_fold(frames, 2)))
        audio = self.audio.stem(_fold(log_mel, 2))
        visual = self._run(self.visual, visual, 0, 1)
        audio = self._run(self.audio, audio, 0, 1)
        lead = frames.shape[:2]
        return Front(
            visual.reshape(*lead, *visual.shape[1:]), audio.reshape(*lead, *audio.shape[1:])
        )

    def closed(self, front: Front) -> tuple[jax.Array, jax.Array]:
        """The pooled streams as if every adapter were closed: question-free.

        Returns:
          visual [V, T, d] and audio [V, T, d].
        """
        streams = []
        for tower, tokens in ((self.visual, front.visual), (self.audio, front.audio)):
            rest = self._run(tower, _fold(tokens, 2), 1, self.rounds)
            streams.append(hierarchy.pool(tower.tail(rest)).reshape(*tokens.shape[:2], -1))
        return tuple(streams)

    def __call__(
        self, front: Front, words: jax.Array, word_mask: jax.Array, segment_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Runs the rounds for every question.

        Args:
          words: [V, Q, N] token ids.
          word_mask: [V, Q, N] bool.
          segment_mask: [V, T] bool, False = the video has no such segment.
        Returns:
          visual [V, Q, T, d] and audio [V, Q, T, d], pooled; text [V, Q, N, d_t].
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
            run = remat.keeping(self.kept, adapt, in_scan)
            visual, audio, text = run(adapter, visual, audio, text)
            return visual, audio, _fold(text, 2)

        def at(state, index):
            return jax.tree.map(lambda leaf: leaf[index], state)

        # The first round apart: its visual and audio tokens are shared by a video's questions.
        visual, audio, text = exchange(
            front.visual[:, None], front.audio[:, None], text, at(text_rounds, 0), at(adapters, 0),
            in_scan=False,
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
        """The blocks of a tower in one round, which may be traced; [b, n, d]."""
        graphdef, state = tower.meeting()
        count = len(jax.tree.leaves(state)[0]) // self.rounds
        return tower.stages[2].run_some(graphdef, state, tokens, index * count, count)

    def _run(self, tower, tokens: jax.Array, first: int, last: int) -> jax.Array:
        """The blocks of rounds first..last - 1 of a tower, nothing exchanged; [b, n, d]."""
        graphdef, state = tower.meeting()
        step = len(jax.tree.leaves(state)[0]) // self.rounds
        if first == last:
            return tokens
        blocks = jax.tree.map(lambda leaf: leaf[first * step : last * step], state)
        return tower.run_meeting(graphdef, blocks, tokens, first * step)


def _fold(x: jax.Array, axes: int) -> jax.Array:
    """Joins the first `axes` axes."""
    return x.reshape(-1, *x.shape[axes:])
