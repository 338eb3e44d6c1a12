"""The universal encoder: a rhythm and a source encoder over time (paper 3.2, Fig. 3, Eq. 7-10).

Axes: V videos, t consecutive segments, d width of a tower's output, I instruments.
"""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import dense, swin_v2
from amuse_jax.models.data_norm import DataNorm
from amuse_jax.models.htsat import HTSAT, HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config
from amuse_jax.music_avqa import vocabulary


@flax.struct.dataclass
class UniversalOutput:
    """The four streams and the two predictions.

    Attributes:
      rhythm_visual, rhythm_audio, source_visual, source_audio: [V, t, d] pooled tokens (Eq. 8).
      rhythm: [V, t] predicted change of rhythm after each segment (Eq. 6).
      sources: [V, t, I] predicted share of each segment in which each instrument sounds.
    """

    rhythm_visual: jax.Array
    rhythm_audio: jax.Array
    source_visual: jax.Array
    source_audio: jax.Array
    rhythm: jax.Array
    sources: jax.Array


class Predictor(nnx.Module):
    """Three linear layers with ReLU between them (Eq. 9), in float32.

    The features are first normalised by their statistics, because the features of untrained towers
    differ little between videos.
    """

    def __init__(self, width_in: int, width: int, width_out: int, *, rngs: nnx.Rngs):
        self.norm = DataNorm(width_in)
        self.first = dense.Linear(width_in, width, rngs=rngs)
        self.second = dense.Linear(width, width, rngs=rngs)
        self.third = dense.Linear(width, width_out, rngs=rngs)

    def __call__(self, visual: jax.Array, audio: jax.Array) -> jax.Array:
        """Predict from both towers' features: [..., d_v] and [..., d_a] -> [..., width_out]."""
        x = self.norm(jnp.concatenate([visual, audio], axis=-1))
        return self.third(nnx.relu(self.second(nnx.relu(self.first(x)))))


class TowerPair(nnx.Module):
    """A Swin-V2 and an HTS-AT with average pooling (Eq. 7, 8)."""

    def __init__(
        self, visual: SwinV2Config, audio: HTSATConfig, *, rngs: nnx.Rngs, dtype, remat_policy: str
    ):
        self.visual = SwinV2(visual, rngs=rngs, dtype=dtype, remat_policy=remat_policy)
        self.audio = HTSAT(audio, rngs=rngs, dtype=dtype, remat_policy=remat_policy)

    def __call__(self, frames: jax.Array, log_mel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the pooled features of each segment.

        Args:
          frames: [V, t, S, S, 3] uint8 RGB.
          log_mel: [V, t, F, M] dB.
        Returns:
          visual [V, t, d_v] and audio [V, t, d_a].
        """
        lead = frames.shape[:2]
        images = swin_v2.normalise(frames.reshape(-1, *frames.shape[2:]))
        visual = self.visual(images).pooled
        audio = self.audio(log_mel.reshape(-1, *log_mel.shape[2:])).pooled
        return visual.reshape(*lead, -1), audio.reshape(*lead, -1)


class UniversalEncoder(nnx.Module):
    """The rhythm encoder and the source encoder.

    Both have the same structure, so their parameters are stacked and the program is compiled once.

    Eq. 6 compares a segment with the next one, so the rhythm predictor gets the pooled features of
    both. The last segment is compared with itself.
    """

    def __init__(
        self,
        visual: SwinV2Config,
        audio: HTSATConfig,
        predictor_width: int,
        *,
        rngs: nnx.Rngs,
        dtype=jnp.float32,
        remat_policy: str = 'everything',
    ):
        def make(rngs):
            return TowerPair(visual, audio, rngs=rngs, dtype=dtype, remat_policy=remat_policy)

        self.pairs = nnx.vmap(make)(rngs.split(2))  # rhythm, source
        width = self.pairs.visual.width_out + self.pairs.audio.width_out
        self.rhythm_predictor = Predictor(2 * width, predictor_width, 1, rngs=rngs)
        self.source_predictor = Predictor(
            width, predictor_width, len(vocabulary.INSTRUMENTS), rngs=rngs
        )

    @property
    def rhythm(self) -> TowerPair:
        """The towers of the rhythm encoder."""
        return self._pair(0)

    @property
    def source(self) -> TowerPair:
        """The towers of the source encoder."""
        return self._pair(1)

    def _pair(self, index: int) -> TowerPair:
        graphdef, state = nnx.split(self.pairs)
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[index], state))

    def __call__(self, frames: jax.Array, log_mel: jax.Array) -> UniversalOutput:
        """Encode t consecutive segments of each video.

        Args:
          frames: [V, t, S, S, 3] uint8 RGB.
          log_mel: [V, t, F, M] dB.
        """
        graphdef, state = nnx.split(self.pairs)
        (rhythm_visual, source_visual), (rhythm_audio, source_audio) = jax.lax.map(
            lambda pair: nnx.merge(graphdef, pair)(frames, log_mel), state
        )
        streams = rhythm_visual, rhythm_audio, source_visual, source_audio
        return UniversalOutput(*streams, *self.predict(*streams))

    def predict(
        self,
        rhythm_visual: jax.Array,
        rhythm_audio: jax.Array,
        source_visual: jax.Array,
        source_audio: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Predict rhythm [V, t] and sources [V, t, I] from the four streams [V, t, d]."""
        rhythm = self.rhythm_predictor(with_next(rhythm_visual), with_next(rhythm_audio))
        return rhythm[..., 0], self.source_predictor(source_visual, source_audio)


def with_next(features: jax.Array) -> jax.Array:
    """Concatenate each segment's features with the next segment's: [V, t, d] -> [V, t, 2d].

    The last segment's features are concatenated with themselves.
    """
    following = jnp.concatenate([features[:, 1:], features[:, -1:]], axis=1)
    return jnp.concatenate([features, following], axis=-1)
