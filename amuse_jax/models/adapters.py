"""Cross-modal adapters between the three towers (paper 3.1, Eq. 1-3).

Axes: V videos, Q questions, T segments, n tokens, d width. Video and audio attend to each other
within a segment; the words are shared by all segments. Video and audio tokens that don't depend on
the question come with a question axis of length 1, and what can be computed from them alone is
computed once per video.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import attention, hierarchy


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapters.

    Attributes:
      visual, audio, text: widths of the three towers' tokens where they meet.
      width: of the adapters; the towers' widths become this one by a 1x1 convolution (4.1).
      heads: of Eq. 1 and of Fuse.
      mlp_width: hidden width of Eq. 2.
    """

    visual: int
    audio: int
    text: int
    width: int
    heads: int
    mlp_width: int


class Projected(NamedTuple):
    """One modality's tokens at the adapters' width, [..., n, width] each."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    own: jax.Array  # the token itself as it enters Fuse


class ModalityAdapter(nnx.Module):
    """What the adapters hold for one modality m with the two others as sources s.

      Q, K, V, X' = LayerNorm(X_m) W             one one projection; X' is 4.1's 1x1 convolution
      Z_ms = relu(A_ms W_1 + b_1) W_2 + b_2      Eq. 2, one per source
      X_m + Fuse(X', Z_ms1, Z_ms2) W_O           Eq. 3; W_O and its bias start at zero

    Fuse is attention of each token over its three candidates: itself and its two attended outputs.
    """

    def __init__(self, width_in: int, config: AdapterConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        width, self.heads = config.width, config.heads
        self.norm = hierarchy.layer_norm(width_in, rngs)
        self.project_in = nnx.Linear(width_in, 4 * width, dtype=dtype, rngs=rngs)
        self.hidden = nnx.List(
            [nnx.Linear(width, config.mlp_width, dtype=dtype, rngs=rngs) for _ in range(2)]
        )
        self.attended = nnx.List(
            [nnx.Linear(config.mlp_width, width, dtype=dtype, rngs=rngs) for _ in range(2)]
        )
        self.fuse_query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.fuse_key_value = nnx.Linear(width, 2 * width, dtype=dtype, rngs=rngs)
        zeros = nnx.initializers.zeros_init()
        self.project_out = nnx.Linear(width, width_in, kernel_init=zeros, dtype=dtype, rngs=rngs)

    def project(self, tokens: jax.Array) -> Projected:
        """[..., n, width_in] -> Eq. 1's queries, keys and values, and the tokens for Fuse."""
        return Projected(*jnp.split(self.project_in(self.norm(tokens)), 4, axis=-1))

    def transform(self, source: int, attended: jax.Array) -> jax.Array:
        """Eq. 2: [..., n, width] attended to the first or second source -> Z [..., n, width]."""
        return self.attended[source](nnx.relu(self.hidden[source](attended)))

    def fuse(self, tokens: jax.Array, own: jax.Array, *attended: jax.Array) -> jax.Array:
        """Eq. 3: tokens [..., n, width_in] + attention over (own, *attended) [..., n, width]."""
        candidates = [
            jnp.split(self.fuse_key_value(candidate), 2, axis=-1) for candidate in (own, *attended)
        ]
        keys, values = zip(*candidates)
        fused = attention.choose(self.fuse_query(own), keys, values, self.heads)
        return tokens + self.project_out(fused).astype(tokens.dtype)


class Adapters(nnx.Module):
    """The six directed pairs between video, audio and text after a round (Eq. 1-3)."""

    def __init__(self, config: AdapterConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        make = lambda width: ModalityAdapter(width, config, rngs=rngs, dtype=dtype)  # noqa: E731
        self.heads = config.heads
        self.visual = make(config.visual)
        self.audio = make(config.audio)
        self.text = make(config.text)

    def __call__(
        self,
        visual: jax.Array,
        audio: jax.Array,
        text: jax.Array,
        word_mask: jax.Array,
        segment_mask: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Exchanges tokens between the modalities.

        Args:
          visual: [V, Q or 1, T, n_v, d_v].
          audio: [V, Q or 1, T, n_a, d_a].
          text: [V, Q, N, d_t].
          word_mask: [V, Q, N] bool, False = padding; nothing attends to it.
          segment_mask: [V, T] bool, False = the video has no such segment; no word attends to it.
        Returns:
          visual [V, Q, T, n_v, d_v], audio [V, Q, T, n_a, d_a], text [V, Q, N, d_t], fused.
        """
        v, a, l = self.visual.project(visual), self.audio.project(audio), self.text.project(text)
        word_key, word_value = l.key[:, :, None], l.value[:, :, None]  # [V, Q, 1, N, width]
        words = word_mask[:, :, None]
        exchange = functools.partial(attention.exchange, heads=self.heads)

        video_from = (
            exchange(v.query, a.key, a.value),
            exchange(v.query, word_key, word_value, mask=words),
        )
        audio_from = (
            exchange(a.query, v.key, v.value),
            exchange(a.query, word_key, word_value, mask=words),
        )
        text_from = (
            _attend_to_segments(exchange, l.query, v, segment_mask),
            _attend_to_segments(exchange, l.query, a, segment_mask),
        )
        return (
            _fuse(self.visual, visual, v.own, video_from),
            _fuse(self.audio, audio, a.own, audio_from),
            _fuse(self.text, text, l.own, text_from),
        )


def _fuse(adapter: ModalityAdapter, tokens, own, attended) -> jax.Array:
    return adapter.fuse(tokens, own, *(adapter.transform(i, x) for i, x in enumerate(attended)))


def _attend_to_segments(exchange, query, source: Projected, segment_mask) -> jax.Array:
    """Words [V, Q, N, width] attend to tokens [V, Q or 1, T, n, width] of all segments."""
    videos, questions, segments, tokens, width = source.key.shape
    key, value = (
        x.reshape(videos, questions, segments * tokens, width) for x in (source.key, source.value)
    )
    mask = jnp.repeat(segment_mask, tokens, axis=1)[:, None]
    return exchange(query, key, value, mask=mask)
