"""The source encoder's predictions as tokens, one per instrument (paper 3.2, Fig. 2b).

A moment of the stream says what sounds now; the questions ask who comes in first, plays longer,
sounds together with whom. So each instrument's predicted frequencies over the T segments become one
token, which also says where its beginning and end lie among those of the others.

Axes: V videos, T segments, I instruments, d width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import hierarchy

PLACES = 5  # in the order of beginnings and of ends that are told apart: first..fifth
_ORDER_SOFTNESS = 0.25  # segments; beginnings closer than that count as simultaneous


def order(activity: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
    """When each instrument comes in, and as which.

      onset_i = sum over t of prod over u <= t of (1 - activity_ui)     segments before it begins
      before_ij = present_j sigmoid((onset_i - onset_j) / softness)     j begins before i

    Args:
      activity: [V, T, I] in [0, 1], share of the segment in which it sounds.
      present: [V, I] in [0, 1], whether it sounds at all.
    Returns:
      onset [V, I] in segments; before [V, I, I], zero on the diagonal.
    """
    onset = jnp.cumprod(1 - activity, axis=1).sum(1)
    later = jax.nn.sigmoid((onset[:, :, None] - onset[:, None, :]) / _ORDER_SOFTNESS)
    apart = 1 - jnp.eye(activity.shape[-1])
    return onset, later * present[:, None, :] * apart


def _nearest(before: jax.Array, onset: jax.Array) -> jax.Array:
    """[V, I, I]: of those before i, weights of the nearest; rows sum to at most one."""
    gap = jnp.abs(onset[:, :, None] - onset[:, None, :])
    weights = before * jnp.exp(-gap)
    return weights / (weights.sum(-1, keepdims=True) + 0.05)


class SourceTimeline(nnx.Module):
    """Predicted frequencies [V, T, I] -> a token per instrument and one for all together.

      h_i     = relu(W_s s_i + (W_f f_i) * (W_n name_i + b))
      token_i = p_i name_i + W h_i + W_b name(before) + W_a name(after) + W_w name(together)
      all     = W' sum_i relu(W'' h_i)

    p_i: whether it sounds at all, its greatest activity: what is absent is not found by its name.
    s_i: its frequencies and activity, mean, least and most of it, onset and end, its soft place in
    the order of beginnings and in that of ends, how much others sound together with it. f_i: the
    stream's features averaged over the segments in which i sounds; what they say about i depends on
    which instrument it is.
    """

    def __init__(
        self, segments: int, feature_size: int, width: int, *, rngs: nnx.Rngs, dtype=jnp.float32
    ):
        def linear(width_in, width_out, **kwargs):
            return nnx.Linear(width_in, width_out, dtype=dtype, rngs=rngs, **kwargs)

        # activity = sigmoid(sharpness (frequency - threshold))
        self.sharpness = nnx.Param(jnp.float32(10.0))
        self.threshold = nnx.Param(jnp.float32(0.3))
        self.feature_norm = hierarchy.layer_norm(feature_size, rngs)
        self.feature = linear(feature_size, width, use_bias=False)
        self.own = linear(width, width)
        self.hidden = linear(2 * segments + 2 * PLACES + 7, width)
        self.token = linear(width, width)
        self.before = linear(width, width, use_bias=False)
        self.after = linear(width, width, use_bias=False)
        self.together = linear(width, width, use_bias=False)
        self.kinds = linear(width, width)
        self.all = linear(width, width)

    def __call__(
        self, sources: jax.Array, features: jax.Array, segment_mask: jax.Array, names: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Embeds the timelines.

        Args:
          sources: [V, T, I] predicted frequency of each instrument in each segment, 1 = throughout.
          features: [V, T, D] the stream's features.
          segment_mask: [V, T] bool.
          names: [I, d] embedding of each instrument's name.
        Returns:
          tokens [V, I + 1, d]; activity [V, T, I] in [0, 1], where each token takes its time from.
        """
        sources = jnp.where(segment_mask[..., None], sources, 0).astype(jnp.float32)
        active = jax.nn.sigmoid(self.sharpness[...] * (sources - self.threshold[...]))
        active = active * segment_mask[..., None]
        seen, relations = self._describe(sources, active, segment_mask)

        share = active / (active.sum(1, keepdims=True) + 1e-3)
        heard = jnp.einsum('vti,vtd->vid', share, self.feature(self.feature_norm(features)))
        hidden = nnx.relu(self.hidden(seen) + heard * self.own(names))
        tokens = self.token(hidden) + names * active.max(1)[..., None]
        for side, relation in zip((self.before, self.after, self.together), relations):
            tokens = tokens + side(relation @ names)
        everything = self.all(nnx.relu(self.kinds(hidden)).sum(1))
        return jnp.concatenate([tokens, everything[:, None]], axis=1), active

    def _describe(
        self, sources: jax.Array, active: jax.Array, segment_mask: jax.Array
    ) -> tuple[jax.Array, list[jax.Array]]:
        """s_i [V, I, S], and weights [V, I, I] of those before, after and together with i."""
        present = active.max(1)
        filled = active * jnp.clip(sources, 0, 1)
        onset, before = order(filled, present)
        end, after = order(filled[:, ::-1], present)
        segments = jnp.maximum(segment_mask.sum(1), 1)[:, None]
        least = jnp.where(segment_mask[..., None], active, 1).min(1)
        both = jnp.minimum(active[..., :, None], active[..., None, :]).sum(1)
        both = both * (1 - jnp.eye(active.shape[-1]))
        statistics = [
            filled.sum(1) / segments, active.sum(1) / segments, least, present,
            onset / segments, end / segments, both.sum(-1) / segments,
        ]  # fmt: skip
        places = jnp.arange(PLACES)
        ranks = [
            jnp.exp(-2 * jnp.square(rank.sum(-1)[..., None] - places)) * present[..., None]
            for rank in (before, after)
        ]
        timelines = [jnp.moveaxis(sources, 1, 2), jnp.moveaxis(active, 1, 2)]
        seen = jnp.concatenate([*timelines, jnp.stack(statistics, -1), *ranks], axis=-1)
        together = both / (both.sum(-1, keepdims=True) + 0.05)
        follow = jnp.swapaxes(before, 1, 2) * present[:, None, :]  # j begins after i
        return seen, [_nearest(before, onset), _nearest(follow, onset), together]
