"""Highway for musical regions of interest (paper 3.3): a detector's regions as one stream.

Two grains. A *moment* is one region in one segment. An *object* is everything the video shows of
one class: the sum over its regions, so that numbers of things can be read off (Deep Sets, Zaheer
et al. 2017), and what stands beside it. Everything here is free of the question.

Axes: V videos, T segments, K regions, C classes, d width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import hierarchy

RANKS = 4  # places from the left or right told apart; the last one means "or more"
POSITIONS = 8  # soft bins of a region's centre along the picture's width
GEOMETRY = 10 + 6 + 2 * RANKS + POSITIONS


def describe_regions(
    boxes: jax.Array, classes: jax.Array, scores: jax.Array, is_instrument: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where each region is, and where it is among the others of its segment.

    A region's partner is the region of the other kind (an instrument's player, a player's
    instrument) that overlaps it best and lies nearest: largest IoU - distance of centres. Its
    offset and size tell whether an instrument is raised to play or rests.

    Args:
      boxes: [V, T, K, 4] x0, y0, x1, y1 in [0, 1] of the picture.
      classes: [V, T, K] index of the class, -1: no region.
      scores: [V, T, K] in [0, 1].
      is_instrument: [C] bool.
    Returns:
      geometry [V, T, K, GEOMETRY] float32: corners, size, centre, area, score; the partner's offset
        and relative size, IoU, and whether there is one; one-hot place from the left and from the
        right among regions of its kind; soft bins of the centre's x. Zero where there is no region.
      left, right [V, T, K, C] float32: one-hot class of the nearest region of its kind on its left
        and right; zero where there is none.
    """
    valid = classes >= 0
    boxes = jnp.where(valid[..., None], boxes, 0).astype(jnp.float32)
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)
    width, height, x, y = x1 - x0, y1 - y0, (x0 + x1) / 2, (y0 + y1) / 2
    own = jnp.stack([x0, y0, x1, y1, width, height, x, y, width * height, scores], axis=-1)

    kind = is_instrument[classes]
    both = valid[..., :, None] & valid[..., None, :]
    same = both & (kind[..., :, None] == kind[..., None, :])
    other = both & (kind[..., :, None] != kind[..., None, :])
    offset_x, offset_y = (c[..., None, :] - c[..., :, None] for c in (x, y))  # [V, T, K, K]
    partner = _partner_features(boxes, other, offset_x, offset_y)

    ranks, neighbours = [], []
    for away in (-offset_x, offset_x):  # distance to the left, to the right
        beyond = same & (away > 0)
        rank = jnp.minimum(beyond.sum(-1), RANKS - 1)
        ranks.append(jax.nn.one_hot(rank, RANKS))
        nearest = jnp.argmin(jnp.where(beyond, away, jnp.inf), axis=-1)
        neighbour = jnp.take_along_axis(classes, nearest, axis=-1)
        neighbours.append(
            jax.nn.one_hot(jnp.where(beyond.any(-1), neighbour, -1), len(is_instrument))
        )
    centres = (jnp.arange(POSITIONS) + 0.5) / POSITIONS
    bins = jnp.exp(-0.5 * jnp.square((x[..., None] - centres) * POSITIONS))
    geometry = jnp.concatenate([own, partner, *ranks, bins], axis=-1)
    return geometry * valid[..., None], *neighbours


def _partner_features(
    boxes: jax.Array, other: jax.Array, offset_x: jax.Array, offset_y: jax.Array
) -> jax.Array:
    """[V, T, K, 6]: offset in own sizes, log ratios of sizes, IoU, 1; zeros for no partner."""
    corner = jnp.maximum(boxes[..., :, None, :2], boxes[..., None, :, :2])
    opposite = jnp.minimum(boxes[..., :, None, 2:], boxes[..., None, :, 2:])
    overlap = jnp.prod(jnp.maximum(opposite - corner, 0), axis=-1)
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 1e-3)
    area = jnp.prod(size, axis=-1)
    iou = overlap / (area[..., :, None] + area[..., None, :] - overlap)
    closeness = jnp.where(other, iou - jnp.hypot(offset_x, offset_y), -jnp.inf)
    best = jnp.argmax(closeness, axis=-1)[..., None]

    def of_partner(pairs):
        return jnp.take_along_axis(pairs, best, axis=-1)[..., 0]

    ratio = jnp.log(size[..., None, :, :] / size[..., :, None, :])
    features = [
        jnp.clip(of_partner(offset_x) / size[..., 0], -3, 3),
        jnp.clip(of_partner(offset_y) / size[..., 1], -3, 3),
        jnp.clip(of_partner(ratio[..., 0]), -3, 3),
        jnp.clip(of_partner(ratio[..., 1]), -3, 3),
        of_partner(iou),
        jnp.ones_like(offset_x[..., 0]),
    ]
    return jnp.stack(features, axis=-1) * other.any(-1)[..., None]


class RoiHighway(nnx.Module):
    """Regions of a video as tokens.

    moment = W_f feature + MLP(geometry) + name(class) + W_l name(left) + W_r name(right)
    object = name(class) + W_s [mean_t n_t, max_t n_t] + W_l name(left) + W_r name(right),
             n_t = sum of phi(geometry) over the segment's regions of that class, phi >= 0
    all    = the same over all instruments, from the sum over classes of relu(W [mean_t, max_t])
    """

    def __init__(
        self,
        is_instrument: tuple[bool, ...],
        feature_size: int,
        width: int,
        *,
        rngs: nnx.Rngs,
        dtype=jnp.float32,
    ):
        def linear(width_in, width_out, **kwargs):
            return nnx.Linear(width_in, width_out, dtype=dtype, rngs=rngs, **kwargs)

        self.is_instrument = is_instrument
        self.feature_norm = hierarchy.layer_norm(feature_size, rngs)
        self.feature = linear(feature_size, width)
        self.hidden = linear(GEOMETRY, width)
        self.moment = linear(width, width)
        self.count = linear(width, width)
        self.left = linear(width, width, use_bias=False)
        self.right = linear(width, width, use_bias=False)
        self.object = linear(2 * width, width)
        self.kinds = linear(2 * width, width)
        self.all = linear(width, width)

    def __call__(
        self,
        boxes: jax.Array,
        classes: jax.Array,
        scores: jax.Array,
        features: jax.Array,
        segment_mask: jax.Array,
        names: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Embeds a detector's regions.

        Args:
          boxes, classes, scores: as for `describe_regions`.
          features: [V, T, K, D] pooled from the detector's maps.
          segment_mask: [V, T] bool; regions of other segments count for nothing.
          names: [C, d] embedding of each class's name.
        Returns:
          moments [V, T, K, d] and objects [V, C + 1, d], the last one all instruments together.
        """
        classes = jnp.where(segment_mask[..., None], classes, -1)
        is_instrument = jnp.asarray(self.is_instrument)
        geometry, left, right = describe_regions(boxes, classes, scores, is_instrument)
        one_hot = jax.nn.one_hot(classes, len(names))
        hidden = nnx.relu(self.hidden(geometry))
        beside = self.left(left @ names) + self.right(right @ names)
        feature = self.feature(self.feature_norm(features))
        moments = self.moment(hidden) + feature + one_hot @ names + beside

        counts = jnp.einsum('vtkc,vtkd->vtcd', one_hot, nnx.relu(self.count(hidden)))
        segments = jnp.maximum(segment_mask.sum(-1), 1)[:, None, None]
        seen = jnp.concatenate([counts.sum(1) / segments, counts.max(1)], axis=-1)  # [V, C, 2d]
        regions = jnp.maximum(one_hot.sum((1, 2)), 1)[..., None]
        beside = [
            side(jnp.einsum('vtkc,vtkb->vcb', one_hot, nearest) / regions @ names)
            for side, nearest in ((self.left, left), (self.right, right))
        ]
        objects = self.object(seen) + names + sum(beside)
        kinds = nnx.relu(self.kinds(seen)) * is_instrument[:, None]
        return moments, jnp.concatenate([objects, self.all(kinds.sum(1))[:, None]], axis=1)
