"""The highway for musical regions of interest (paper 3.3)."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

RANKS = 4  # distinct ranks from the left or from the right
POSITIONS = 8  # soft bins for a region's centre along the width of the frame
COUNTS = 24  # soft counts per group of regions
GEOMETRY = 10 + 6 + 2 * RANKS + POSITIONS


class Regions(NamedTuple):
    """Regions as tokens.

    Attributes:
      moments: (B, T, K, d), one token per region.
      objects: (B, G, d), one token per group. The groups are the classes, the 3 places, and all
        instruments together.
      members: (B, T, K, G), 1 where a region belongs to a group.
    """

    moments: torch.Tensor
    objects: torch.Tensor
    members: torch.Tensor


class RoiHighway(nn.Module):
    """Embeds a detector's boxes, classes, scores and features as tokens."""

    def __init__(
        self, is_instrument: tuple[bool, ...], segments: int, feature_size: int, width: int
    ):
        super().__init__()
        self.register_buffer('is_instrument', torch.tensor(is_instrument), persistent=False)
        self.feature_norm = nn.LayerNorm(feature_size)
        self.feature = nn.Linear(feature_size, width, bias=False)
        self.geometry = nn.Linear(GEOMETRY, width)
        self.moment = nn.Linear(width, width)
        self.count = nn.Linear(width, COUNTS)
        self.seen = nn.Linear((2 + segments) * COUNTS, width)
        self.object = nn.Linear(width, width)
        self.kinds = nn.Linear(width, width)
        self.left = nn.Linear(width, width, bias=False)
        self.right = nn.Linear(width, width, bias=False)

    def forward(
        self,
        boxes: torch.Tensor,
        classes: torch.Tensor,
        scores: torch.Tensor,
        features: torch.Tensor,
        segment_mask: torch.Tensor,
        class_names: torch.Tensor,
        place_names: torch.Tensor,
    ) -> Regions:
        """Embed the regions.

        Args:
          boxes: (B, T, K, 4) corners in [0, 1].
          classes: (B, T, K) class numbers; -1 means no region.
          scores: (B, T, K) scores of the detector.
          features: (B, T, K, D) features of the detector.
          segment_mask: (B, T) bool, True for segments that exist.
          class_names: (C, d), the names of the classes.
          place_names: (3, d), the names of left, middle and right.
        """
        valid = (classes >= 0) & segment_mask[..., None]
        of_class = one_hot(classes, len(class_names), valid)
        instrument = self.is_instrument.float()
        kind = of_class @ instrument
        geometry, places, *sides = describe(boxes, scores, of_class, valid, kind)
        members = torch.cat([of_class, places, kind[..., None]], dim=-1)

        feature = self.feature_norm(features) * valid[..., None]
        hidden = functional.relu(self.geometry(geometry) + self.feature(feature))
        names = of_class @ class_names + places @ place_names
        left, right = (side @ class_names for side in sides)
        moments = self.moment(hidden) + names + self.left(left) + self.right(right)

        segments = segment_mask.sum(1).clamp(min=1)[:, None, None]
        counts = functional.relu(self.count(hidden))  # (B, T, K, n)
        counts = members.mT @ counts  # (B, T, G, n)
        series = counts.transpose(1, 2).flatten(2)
        totals = [counts.sum(1) / segments, counts.amax(1), series]
        seen = functional.relu(self.seen(torch.cat(totals, dim=-1)))  # (B, G, d)

        groups = members.flatten(1, 2)  # (B, T * K, G)
        number = groups.sum(1).clamp(min=1)[..., None]
        name, left, right = (groups.mT @ x.flatten(1, 2) / number for x in (names, left, right))
        share = members.amax(2).sum(1)[..., None] / segments
        objects = self.object(seen) + share * name + self.left(left) + self.right(right)
        kinds = (seen[:, : len(class_names)] * instrument[:, None]).sum(1, keepdim=True)
        last = objects[:, -1:] + self.kinds(kinds)
        return Regions(moments, torch.cat([objects[:, :-1], last], dim=1), members)


def describe(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    of_class: torch.Tensor,
    valid: torch.Tensor,
    kind: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Describe every region by its box and its neighbours; the result is zero without a region.

    Args:
      boxes: as for RoiHighway.
      scores: as for RoiHighway.
      of_class: (B, T, K, C), the one-hot class.
      valid: (B, T, K) bool, True for regions.
      kind: (B, T, K), 1 for instruments.

    Returns:
      Geometry (B, T, K, GEOMETRY); places (B, T, K, 3), of instruments only; and the one-hot class
      (B, T, K, C) of the nearest region of the same kind, to the left and to the right.
    """
    boxes = boxes * valid[..., None]
    low, high = boxes[..., :2], boxes[..., 2:]
    extent, centre = high - low, (low + high) / 2
    area = extent.prod(-1, keepdim=True)
    own = torch.cat([boxes, extent, centre, area, scores[..., None]], dim=-1)

    both = valid[..., :, None] & valid[..., None, :]
    is_same = kind[..., :, None] == kind[..., None, :]
    offset = centre[..., None, :, :] - centre[..., :, None, :]  # (B, T, K, K, 2), from i to j
    partner = describe_partner(boxes, offset, both & ~is_same)

    ranks, neighbours = [], []
    for distance in (-offset[..., 0], offset[..., 0]):
        is_beyond = both & is_same & (distance > 0)
        ranks.append(is_beyond.sum(-1))
        nearest = distance.masked_fill(~is_beyond, torch.inf).argmin(-1, keepdim=True)
        neighbour = torch.take_along_dim(of_class, nearest, dim=-2)
        neighbours.append(neighbour * is_beyond.any(-1, keepdim=True))
    left, right = ranks
    places = torch.stack([left == 0, left == right, right == 0], dim=-1)
    places = places * (valid * kind)[..., None]
    bins = (torch.arange(POSITIONS, device=boxes.device) + 0.5) / POSITIONS
    bins = torch.exp(-0.5 * ((centre[..., :1] - bins) * POSITIONS) ** 2)
    one_hot_ranks = [functional.one_hot(rank.clamp(max=RANKS - 1), RANKS) for rank in ranks]
    geometry = torch.cat([own, partner, *one_hot_ranks, bins], dim=-1)
    return geometry * valid[..., None], places.to(boxes.dtype), *neighbours


def describe_partner(
    boxes: torch.Tensor, offset: torch.Tensor, is_other: torch.Tensor
) -> torch.Tensor:
    """Return (B, T, K, 6), the relative position of the partner of each region.

    The partner is the region of the other kind with the best overlap and the shortest distance.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    corner = torch.maximum(low[..., :, None, :], low[..., None, :, :])
    opposite = torch.minimum(high[..., :, None, :], high[..., None, :, :])
    overlap = (opposite - corner).clamp(min=0).prod(-1)
    size = (high - low).clamp(min=1e-3)
    area = size.prod(-1)
    iou = overlap / (area[..., :, None] + area[..., None, :] - overlap)
    closeness = (iou - offset.norm(dim=-1)).masked_fill(~is_other, -torch.inf)
    ratio = torch.log(size[..., None, :, :] / size[..., :, None, :])
    place = torch.cat([offset / size[..., :, None, :], ratio], dim=-1).clamp(-3, 3)
    pairs = torch.cat([place, torch.stack([iou, torch.ones_like(iou)], dim=-1)], dim=-1)
    best = closeness.argmax(-1)[..., None, None]
    of_best = torch.take_along_dim(pairs, best, dim=-2)[..., 0, :]  # of (B, T, K, K, 6)
    return of_best * is_other.any(-1, keepdim=True)


def one_hot(classes: torch.Tensor, count: int, valid: torch.Tensor) -> torch.Tensor:
    """Return classes (B, T, K) as float one-hot vectors (B, T, K, C); zeros without a region."""
    return functional.one_hot(classes.clamp(min=0), count).float() * valid[..., None]
