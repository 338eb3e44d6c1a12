"""The source encoder's predictions as tokens, one per instrument (paper 3.2, Fig. 2b).

A token of one segment shows which instruments sound in it. But questions ask which instrument comes
in first, plays longest, or sounds together with another. So each instrument's predicted frequencies
over the T segments become one token, which also describes when the instrument begins and ends
compared with the others.

Axes: V videos, T segments, I instruments, d width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import dense, hierarchy

PLACES = 5  # ranks in the order of beginnings and in the order of ends, first to fifth
_ORDER_SOFTNESS = 0.25  # segments; closer beginnings count as simultaneous


def onset_order(activity: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return when each instrument begins, and which instruments begin before it.

      onset_i = sum over t of prod over u <= t of (1 - activity_ui)     segments before i begins
      before_ij = present_j sigmoid((onset_i - onset_j) / softness)     j begins before i

    Args:
      activity: [V, T, I] in [0, 1], share of the segment in which the instrument sounds.
      present: [V, I] in [0, 1], whether the instrument sounds at all.
    Returns:
      onset [V, I] in segments; before [V, I, I], zero on the diagonal.
    """
    onset = jnp.cumprod(1 - activity, axis=1).sum(1)
    later = jax.nn.sigmoid((onset[:, :, None] - onset[:, None, :]) / _ORDER_SOFTNESS)
    off_diagonal = 1 - jnp.eye(activity.shape[-1])
    return onset, later * present[:, None, :] * off_diagonal


def _nearest(before: jax.Array, onset: jax.Array) -> jax.Array:
    """Weight the instruments j in `before` [V, I, I] by how near their onset is to the onset of i.

    Rows sum to at most one.
    """
    gap = jnp.abs(onset[:, :, None] - onset[:, None, :])
    weights = before * jnp.exp(-gap)
    return weights / (weights.sum(-1, keepdims=True) + 0.05)


class SourceTimeline(nnx.Module):
    """Embedding of predicted frequencies: a token per instrument and one for all together.

      h_i     = relu(W_s s_i + (W_f f_i) * (W_n name_i + b))
      token_i = p_i name_i + W h_i + W_b name(before) + W_a name(after) + W_w name(together)
      all     = W' sum_i relu(W'' h_i)

    p_i: the instrument's largest activity, that is, whether it sounds at all. So attention by name
    does not find an absent instrument.
    s_i: its frequencies and activities; the mean, minimum and maximum of its activity; its onset
    and end; its soft rank in the order of beginnings and in the order of ends; and how much other
    instruments sound together with it.
    f_i: the stream's features, averaged over the segments in which i sounds. Their meaning depends
    on the instrument, so they are multiplied with a projection of its name.
    """

    def __init__(
        self, segments: int, feature_size: int, width: int, *, rngs: nnx.Rngs, dtype=jnp.float32
    ):
        def linear(width_in, width_out, **kwargs):
            return dense.Linear(width_in, width_out, dtype=dtype, rngs=rngs, **kwargs)

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
        """Embed the timelines of all instruments.

        Args:
          sources: [V, T, I] predicted frequency of each instrument in each segment; 1 = it sounds
            throughout the segment.
          features: [V, T, D] features of the stream.
          segment_mask: [V, T] bool, False = the video has no such segment.
          names: [I, d] embedded names of the instruments.
        Returns:
          tokens [V, I + 1, d]; activity [V, T, I] in [0, 1], which segments each instrument's token
          describes.
        """
        sources = jnp.where(segment_mask[..., None], sources, 0).astype(jnp.float32)
        active = jax.nn.sigmoid(self.sharpness[...] * (sources - self.threshold[...]))
        active = active * segment_mask[..., None]
        description, relations = self._describe(sources, active, segment_mask)

        share = active / (active.sum(1, keepdims=True) + 1e-3)
        heard = jnp.einsum('vti,vtd->vid', share, self.feature(self.feature_norm(features)))
        hidden = nnx.relu(self.hidden(description) + heard * self.own(names))
        tokens = self.token(hidden) + names * active.max(1)[..., None]
        for side, relation in zip((self.before, self.after, self.together), relations):
            tokens = tokens + side(relation @ names)
        everything = self.all(nnx.relu(self.kinds(hidden)).sum(1))
        return jnp.concatenate([tokens, everything[:, None]], axis=1), active

    def _describe(
        self, sources: jax.Array, active: jax.Array, segment_mask: jax.Array
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Return s_i and the instruments before, after and together with each instrument i.

        Returns:
          s [V, I, S]; and three arrays of weights [V, I, I]: before, after and together.
        """
        present = active.max(1)
        filled = active * jnp.clip(sources, 0, 1)
        onset, before = onset_order(filled, present)
        end, after = onset_order(filled[:, ::-1], present)
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
        description = jnp.concatenate([*timelines, jnp.stack(statistics, -1), *ranks], axis=-1)
        together = both / (both.sum(-1, keepdims=True) + 0.05)
        follow = jnp.swapaxes(before, 1, 2) * present[:, None, :]  # j begins after i
        return description, [_nearest(before, onset), _nearest(follow, onset), together]
