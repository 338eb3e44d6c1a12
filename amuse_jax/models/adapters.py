"""Cross-modal adapters between the three towers (paper 3.1, Eq. 1-3).

Axes: V videos, Q questions, T segments, n tokens, d width. Video and audio attend to each other
within a segment; all segments share the words. Video and audio tokens that do not depend on the
question have a question axis of length 1, so what depends only on them is computed once per video.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import hierarchy, remat
from amuse_jax.models.attention import multihead


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapters.

    Attributes:
      visual, audio, text: widths of the tokens that each tower gives to the adapters.
      width: width of the adapters; a 1x1 convolution (4.1) maps the towers' widths to it.
      heads: attention heads of Eq. 1 and of Fuse.
      mlp_width: hidden width of the MLP in Eq. 2.
    """

    visual: int
    audio: int
    text: int
    width: int
    heads: int
    mlp_width: int


class Projected(NamedTuple):
    """One modality's tokens projected to the adapters' width, [..., n, width] each.

    Attributes:
      query, key, value: for Eq. 1.
      own: the token itself as it enters Fuse.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    own: jax.Array


class ModalityAdapter(nnx.Module):
    """The adapter layers of one modality m; the two other modalities are its sources s.

      Q, K, V, X' = LayerNorm(X_m) W             one projection; X' is 4.1's 1x1 convolution
      Z_ms = relu(A_ms W_1 + b_1) W_2 + b_2      Eq. 2, one per source
      X_m + Fuse(X', Z_ms1, Z_ms2) W_O           Eq. 3; W_O and its bias start at zero

    In Fuse every token attends to three candidates: itself and its two attended outputs.
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
        """Project tokens [..., n, width_in] to the inputs of Eq. 1 and of Fuse."""
        projected = checkpoint_name(self.project_in(self.norm(tokens)), remat.QKV)
        return Projected(*jnp.split(projected, 4, axis=-1))

    def transform(self, source: int, attended: jax.Array) -> jax.Array:
        """Apply the MLP of Eq. 2 to one source's attended output.

        Args:
          source: 0 or 1, the first or the second source.
          attended: [..., n, width], the result of Eq. 1.
        Returns:
          Z [..., n, width].
        """
        return self.attended[source](nnx.relu(self.hidden[source](attended)))

    def fuse(self, tokens: jax.Array, own: jax.Array, *attended: jax.Array) -> jax.Array:
        """Fuse each token with its attended outputs and add the result to it (Eq. 3).

        Args:
          tokens: [..., n, width_in].
          own, *attended: [..., n, width], the candidates that a token attends to.
        Returns:
          [..., n, width_in].
        """
        candidates = [
            jnp.split(self.fuse_key_value(candidate), 2, axis=-1) for candidate in (own, *attended)
        ]
        keys, values = zip(*candidates)
        fused = multihead.attend_to_candidates(self.fuse_query(own), keys, values, self.heads)
        return tokens + self.project_out(fused).astype(tokens.dtype)


class Adapters(nnx.Module):
    """Adapters for the six directed pairs of video, audio and text after one round (Eq. 1-3)."""

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
        """Let each modality attend to the two others, and fuse the results into its tokens.

        Args:
          visual: [V, Q or 1, T, n_v, d_v].
          audio: [V, Q or 1, T, n_a, d_a].
          text: [V, Q, N, d_t].
          word_mask: [V, Q, N] bool, False = padding; nothing attends to it.
          segment_mask: [V, T] bool, False = the video has no such segment; no word attends to it.
        Returns:
          The fused tokens: visual [V, Q, T, n_v, d_v], audio [V, Q, T, n_a, d_a] and text
          [V, Q, N, d_t].
        """
        v, a, l = self.visual.project(visual), self.audio.project(audio), self.text.project(text)
        word_key, word_value = l.key[:, :, None], l.value[:, :, None]  # [V, Q, 1, N, width]
        words = word_mask[:, :, None]
        attend = functools.partial(multihead.attend_heads, heads=self.heads)

        video_from = (
            attend(v.query, a.key, a.value),
            attend(v.query, word_key, word_value, mask=words),
        )
        audio_from = (
            attend(a.query, v.key, v.value),
            attend(a.query, word_key, word_value, mask=words),
        )
        text_from = (
            _attend_to_segments(attend, l.query, v, segment_mask),
            _attend_to_segments(attend, l.query, a, segment_mask),
        )
        return (
            _fuse(self.visual, visual, v.own, video_from),
            _fuse(self.audio, audio, a.own, audio_from),
            _fuse(self.text, text, l.own, text_from),
        )


def _fuse(adapter: ModalityAdapter, tokens, own, attended) -> jax.Array:
    return adapter.fuse(tokens, own, *(adapter.transform(i, x) for i, x in enumerate(attended)))


def _attend_to_segments(attend, query, source: Projected, segment_mask) -> jax.Array:
    """Let words [V, Q, N, width] attend to the tokens [V, Q or 1, T, n, width] of all segments."""
    videos, questions, segments, tokens, width = source.key.shape
    key, value = (
        x.reshape(videos, questions, segments * tokens, width) for x in (source.key, source.value)
    )
    mask = jnp.repeat(segment_mask, tokens, axis=1)[:, None]
    return attend(query, key, value, mask=mask)
