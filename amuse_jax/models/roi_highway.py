"""Highway for musical regions of interest (paper 3.3): a detector's regions as one stream.

The stream has two kinds of token. A *moment* is one region in one segment. An *object* stands for
all regions of one class in the video. It is built from sums over these regions, so that a model can
count them (Deep Sets, Zaheer et al. 2017), and from the names of their neighbours. Nothing here
depends on the question.

Axes: V videos, T segments, K regions, C classes, d width.
"""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from amuse_jax.models import dense, hierarchy

RANKS = 4  # places counted from the left or right, 0 to 3; the last one means "3 or more"
POSITIONS = 8  # soft bins of a region's centre along the picture's width
COUNTS = 24  # soft counts of each group of regions
GEOMETRY = 10 + 6 + 2 * RANKS + POSITIONS


@flax.struct.dataclass
class Description:
    """The position of each region in the image and among the regions of its segment.

    All values are zero where there is no region. A region's kind is instrument or player.

    Attributes:
      geometry: [V, T, K, GEOMETRY]: corners, size, centre, area and score; the partner's offset,
        relative size and IoU, and whether there is a partner; one-hot place from the left and from
        the right among the regions of the same kind; soft bins of the centre's x.
      left, right: [V, T, K, C] one-hot class of the nearest region of the same kind on that side.
      places: [V, T, K, 3] whether the region is the instrument at the left end, in the middle or at
        the right end.
    """

    geometry: jax.Array
    left: jax.Array
    right: jax.Array
    places: jax.Array


def describe_regions(
    boxes: jax.Array, classes: jax.Array, scores: jax.Array, is_instrument: jax.Array
) -> Description:
    """Describe each region by its box and its neighbours.

    A region's partner is the region of the other kind (an instrument's player, a player's
    instrument) with the largest IoU - distance of the centres. The partner's offset and size show
    whether an instrument is raised to play or at rest.

    Args:
      boxes: [V, T, K, 4] x0, y0, x1, y1, as fractions of the image's sides.
      classes: [V, T, K] index of the class; -1 = no region.
      scores: [V, T, K] in [0, 1].
      is_instrument: [C] bool.
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
        ranks.append(beyond.sum(-1))
        nearest = jnp.argmin(jnp.where(beyond, away, jnp.inf), axis=-1)
        neighbour = jnp.take_along_axis(classes, nearest, axis=-1)
        neighbour = jnp.where(beyond.any(-1), neighbour, -1)
        neighbours.append(jax.nn.one_hot(neighbour, len(is_instrument)))
    from_left, from_right = ranks
    places = jnp.stack([from_left == 0, from_left == from_right, from_right == 0], axis=-1)
    centres = (jnp.arange(POSITIONS) + 0.5) / POSITIONS
    bins = jnp.exp(-0.5 * jnp.square((x[..., None] - centres) * POSITIONS))
    one_hot_ranks = [jax.nn.one_hot(jnp.minimum(rank, RANKS - 1), RANKS) for rank in ranks]
    geometry = jnp.concatenate([own, partner, *one_hot_ranks, bins], axis=-1)
    return Description(
        geometry * valid[..., None],
        *neighbours,
        (places & (valid & kind)[..., None]).astype(jnp.float32),
    )


def _partner_features(
    boxes: jax.Array, other: jax.Array, offset_x: jax.Array, offset_y: jax.Array
) -> jax.Array:
    """Return the partner's features [V, T, K, 6], zeros without a partner.

    They are the offset in units of the region's own size (2), the log ratios of the sizes (2), the
    IoU, and 1.
    """
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


@flax.struct.dataclass
class RegionTokens:
    """The tokens of the regions.

    Attributes:
      moments: [V, T, K, d], one per region.
      objects: [V, G, d], one per group of regions: the C classes, the 3 places, all instruments.
      members: [V, T, K, G], 1 where the region belongs to the group.
    """

    moments: jax.Array
    objects: jax.Array
    members: jax.Array


class RoiHighway(nnx.Module):
    """Embedding of a video's regions as tokens.

      h      = relu(W_g geometry + W_f LayerNorm(feature))                        of each region
      moment = W h + names + W_l name(left) + W_r name(right)
      n_tg   = sum of relu(W_n h) over the regions of group g in segment t        soft counts
      object = W_o relu(W_s [mean_t n_t, max_t n_t, n_1 .. n_T]) + names + W_l name(left) + ...
      all    = the same over all instruments, plus W_k of the sum of the classes' hidden layers

    names: the name of the region's class, plus the name of its place if it is the instrument at the
    left end, in the middle or at the right end of its segment. An object has the mean of its
    regions' names, times the share of the segments that show it. So attention by name does not find
    an object that the video does not show.
    """

    def __init__(
        self,
        is_instrument: tuple[bool, ...],
        segments: int,
        feature_size: int,
        width: int,
        *,
        rngs: nnx.Rngs,
        dtype=jnp.float32,
    ):
        def linear(width_in, width_out, **kwargs):
            return dense.Linear(width_in, width_out, dtype=dtype, rngs=rngs, **kwargs)

        self.is_instrument = is_instrument
        self.feature_norm = hierarchy.layer_norm(feature_size, rngs)
        self.feature = linear(feature_size, width, use_bias=False)
        self.geometry = linear(GEOMETRY, width)
        self.moment = linear(width, width)
        self.count = linear(width, COUNTS)
        self.seen = linear((2 + segments) * COUNTS, width)
        self.object = linear(width, width)
        self.kinds = linear(width, width)
        self.left = linear(width, width, use_bias=False)
        self.right = linear(width, width, use_bias=False)

    def __call__(
        self,
        boxes: jax.Array,
        classes: jax.Array,
        scores: jax.Array,
        features: jax.Array,
        segment_mask: jax.Array,
        class_names: jax.Array,
        place_names: jax.Array,
    ) -> RegionTokens:
        """Embed the regions of a detector.

        Args:
          boxes, classes, scores: as for `describe_regions`.
          features: [V, T, K, D] pooled from the detector's feature maps.
          segment_mask: [V, T] bool, False = ignore the regions of this segment.
          class_names: [C, d] embedded names of the classes.
          place_names: [3, d] embedded names of left, middle and right.
        """
        classes = jnp.where(segment_mask[..., None], classes, -1)
        is_instrument = jnp.asarray(self.is_instrument)
        description = describe_regions(boxes, classes, scores, is_instrument)
        valid = (classes >= 0)[..., None]
        feature = jnp.where(valid, self.feature_norm(features), 0)
        hidden = nnx.relu(self.geometry(description.geometry) + self.feature(feature))
        class_members = jax.nn.one_hot(classes, len(class_names))
        instruments = class_members @ is_instrument.astype(jnp.float32)[:, None]
        members = jnp.concatenate([class_members, description.places, instruments], axis=-1)
        names = class_members @ class_names + description.places @ place_names
        left, right = description.left @ class_names, description.right @ class_names
        moments = self.moment(hidden) + names + self.left(left) + self.right(right)

        counts = jnp.einsum('vtkg,vtkd->vtgd', members, nnx.relu(self.count(hidden)))
        regions = jnp.maximum(members.sum((1, 2)), 1)[..., None]
        mean_names, left, right = (
            jnp.einsum('vtkg,vtkd->vgd', members, x) / regions for x in (names, left, right)
        )
        segments = jnp.maximum(segment_mask.sum(-1), 1)[:, None, None]
        share = members.max(2).sum(1)[..., None] / segments  # share of segments with the group
        summary = self._summarise_counts(counts, segments)
        objects = self.object(summary) + share * mean_names + self.left(left) + self.right(right)
        kinds = jnp.where(is_instrument[:, None], summary[:, : len(class_names)], 0).sum(1)
        objects = objects.at[:, -1].add(self.kinds(kinds))
        return RegionTokens(moments, objects, members)

    def _summarise_counts(self, counts: jax.Array, segments: jax.Array) -> jax.Array:
        """Map soft counts [V, T, G, n] to a group's hidden layer [V, G, d]."""
        series = jnp.moveaxis(counts, 1, 2).reshape(len(counts), counts.shape[2], -1)
        counts = jnp.concatenate([counts.sum(1) / segments, counts.max(1), series], axis=-1)
        return nnx.relu(self.seen(counts))
