"""Cross-modal adapters between the three towers (paper 3.1, Eq. 1-3).

Axes: V videos, Q questions, T segments, n tokens, d width. Video and audio attend to each other
within a segment; all segments share the words. Video and audio tokens that do not depend on the
question have a question axis of length 1, so what depends only on them is computed once per video.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from amuse_jax.models import dense, hierarchy, platform, remat
from amuse_jax.models.attention import candidates, multihead
from amuse_jax.models.layer_norm import LayerNorm


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


@flax.struct.dataclass
class Linear:
    """A linear layer's arrays in the dtype of the computation: x W + b."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., d] -> [..., d']."""
        product = dense.matmul(x.astype(self.kernel.dtype), self.kernel)
        return dense.add_bias(product, self.bias)

    def split(self, parts: int) -> list['Linear']:
        """Return layers that compute one of `parts` equal parts of the result each."""
        arrays = zip(jnp.split(self.kernel, parts, axis=1), jnp.split(self.bias, parts))
        return [Linear(*part) for part in arrays]


@flax.struct.dataclass
class ModalityWeights:
    """What one modality's adapter computes with; `ModalityAdapter.weights` makes it.

    Attributes:
      norm: LayerNorm of the tokens.
      project_in: from the tokens to Q, K, V and X'.
      hidden: W_1 and b_1 of Eq. 2, one per source.
      key_value: from X' and from the hidden layers of the two sources to keys and values of Fuse.
      fuse_query, project_out: the query of Fuse, and W_O.
      heads: number of attention heads of Fuse.
    """

    norm: LayerNorm
    project_in: Linear
    hidden: tuple[Linear, Linear]
    key_value: tuple[Linear, Linear, Linear]
    fuse_query: Linear
    project_out: Linear
    heads: int = flax.struct.field(pytree_node=False)

    def project(self, tokens: jax.Array) -> Projected:
        """Project tokens [..., n, width_in] to the inputs of Eq. 1 and of Fuse."""
        projected = checkpoint_name(self.project_in(self.norm(tokens)), remat.QKV)
        return Projected(*jnp.split(projected, 4, axis=-1))

    def fuse(self, tokens: jax.Array, own: jax.Array, *attended: jax.Array) -> jax.Array:
        """Apply Eq. 2 to the attended outputs and fuse them with the tokens (Eq. 3).

        Args:
          tokens: [..., n, width_in].
          own: [..., n, width], X'.
          *attended: [..., n, width], the results of Eq. 1 for the two sources.
        Returns:
          [..., n, width_in].
        """
        hidden = (relu(layer(x)) for layer, x in zip(self.hidden, attended))
        query, inputs = self.fuse_query(own), zip(self.key_value, (own, *hidden))
        if platform.current() == 'tpu':
            # Keys and values are products of their own, so that no result is split.
            keys, values = zip(*([part(x) for part in layer.split(2)] for layer, x in inputs))
            fused = candidates.attend_on_tpu(query, keys, values, self.heads)
        else:
            fused = candidates.attend(query, [layer(x) for layer, x in inputs], self.heads)
        return tokens + self.project_out(fused).astype(tokens.dtype)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """Return max(x, 0). Its gradient reads only the result, so x itself need not be stored."""
    return jnp.maximum(x, 0)


def _relu_forward(x):
    # Without the barrier XLA compares x instead of y, and stores both.
    y = jax.lax.optimization_barrier(jnp.maximum(x, 0))
    return y, y


relu.defvjp(_relu_forward, lambda y, gradient: (jnp.where(y > 0, gradient, 0),))


class ModalityAdapter(nnx.Module):
    """The adapter layers of one modality m; the two other modalities are its sources s.

      Q, K, V, X' = LayerNorm(X_m) W             one projection; X' is 4.1's 1x1 convolution
      Z_ms = relu(A_ms W_1 + b_1) W_2 + b_2      Eq. 2, one per source
      X_m + Fuse(X', Z_ms1, Z_ms2) W_O           Eq. 3; W_O and its bias start at zero

    In Fuse every token attends to three candidates: itself and its two attended outputs.
    """

    def __init__(self, width_in: int, config: AdapterConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        width, self.heads, self.dtype = config.width, config.heads, dtype

        def linear(width_in, width_out, **options):
            return dense.Linear(width_in, width_out, dtype=dtype, rngs=rngs, **options)

        self.norm = hierarchy.layer_norm(width_in, rngs)
        self.project_in = linear(width_in, 4 * width)
        self.hidden = nnx.List([linear(width, config.mlp_width) for _ in range(2)])
        self.attended = nnx.List([linear(config.mlp_width, width) for _ in range(2)])
        self.fuse_query = linear(width, width)
        self.fuse_key_value = linear(width, 2 * width)
        zeros = nnx.initializers.zeros_init()
        self.project_out = linear(width, width_in, kernel_init=zeros)

    def weights(self) -> ModalityWeights:
        """Return the arrays to compute with, in the dtype of the computation.

        Fuse uses Z only through its keys and values, which are linear in it. So W_2 and the
        projection to keys and values are multiplied here, once for all tokens.
        """

        def cast(layer):
            return Linear(layer.kernel[...].astype(self.dtype), layer.bias[...].astype(self.dtype))

        key_value = self.fuse_key_value
        folded = (
            Linear(
                (layer.kernel[...] @ key_value.kernel[...]).astype(self.dtype),
                (layer.bias[...] @ key_value.kernel[...] + key_value.bias[...]).astype(self.dtype),
            )
            for layer in self.attended
        )
        return ModalityWeights(
            norm=self.norm,
            project_in=cast(self.project_in),
            hidden=tuple(map(cast, self.hidden)),
            key_value=(cast(key_value), *folded),
            fuse_query=cast(self.fuse_query),
            project_out=cast(self.project_out),
            heads=self.heads,
        )


@flax.struct.dataclass
class AdapterWeights:
    """What the adapters of a round compute with; `Adapters.weights` makes it."""

    visual: ModalityWeights
    audio: ModalityWeights
    text: ModalityWeights

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
        attend = functools.partial(multihead.attend_heads, heads=self.visual.heads)

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
            self.visual.fuse(visual, v.own, *video_from),
            self.audio.fuse(audio, a.own, *audio_from),
            self.text.fuse(text, l.own, *text_from),
        )


class Adapters(nnx.Module):
    """Adapters for the six directed pairs of video, audio and text after one round (Eq. 1-3)."""

    def __init__(self, config: AdapterConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        self.visual, self.audio, self.text = (
            ModalityAdapter(width, config, rngs=rngs, dtype=dtype)
            for width in (config.visual, config.audio, config.text)
        )

    def weights(self) -> AdapterWeights:
        """Return the arrays to compute with; see `ModalityAdapter.weights`."""
        return AdapterWeights(self.visual.weights(), self.audio.weights(), self.text.weights())

    def __call__(self, *inputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Run the adapters; see `AdapterWeights`."""
        return self.weights()(*inputs)


def _attend_to_segments(attend, query, source: Projected, segment_mask) -> jax.Array:
    """Let words [V, Q, N, width] attend to the tokens [V, Q or 1, T, n, width] of all segments."""
    videos, questions, segments, tokens, width = source.key.shape
    key, value = (
        x.reshape(videos, questions, segments * tokens, width) for x in (source.key, source.value)
    )
    mask = jnp.repeat(segment_mask, tokens, axis=1)[:, None]
    return attend(query, key, value, mask=mask)
