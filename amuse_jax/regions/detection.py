"""What a detector sees in pictures: the K best boxes, their classes, scores and features (3.3).

Only for processes of the rois stage: it imports PyTorch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import roi_align
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression

from amuse_jax.regions import detector


@dataclass(frozen=True)
class Regions:
    """K regions in each of n pictures, best first; places without one have class -1 and zeros.

    Attributes:
      boxes: (n, K, 4) float16, xyxy in [0, 1] of the picture.
      classes: (n, K) int16.
      scores: (n, K) float16.
      features: (n, K, D) float16, the detector's three maps averaged over the box, one behind
        the other.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    features: np.ndarray

    @classmethod
    def none(cls, n: int, regions: int, feature_size: int) -> 'Regions':
        return cls(
            np.zeros((n, regions, 4), np.float16),
            np.full((n, regions), -1, np.int16),
            np.zeros((n, regions), np.float16),
            np.zeros((n, regions, feature_size), np.float16),
        )


def best_regions(
    output: torch.Tensor, *, regions: int, min_score: float, max_overlap: float
) -> list[torch.Tensor]:
    """Non-maximum suppression within each class, then the best `regions` of what is left.

    Args:
      output: (n, 4 + classes, anchors) of the detector: centre x, centre y, width, height in
        pixels, scores.
      min_score: only boxes above it.
      max_overlap: IoU with a better box of the same class up to which a box is kept.

    Returns:
      n tensors (at most `regions`, 6): xyxy, score, class; best first.
    """
    return non_max_suppression(
        output.clone(),  # it changes its argument
        min_score,
        max_overlap,
        max_det=regions,
        max_time_img=float('inf'),  # else it drops pictures when the machine is busy
        nc=output.shape[1] - 4,
    )


def find_regions(
    model: DetectionModel,
    pictures: np.ndarray,
    inside: tuple[int, int],
    *,
    regions: int,
    min_score: float,
    max_overlap: float,
) -> Regions:
    """Runs the detector.

    Args:
      pictures: uint8 (n, H, W, 3) RGB, H and W multiples of 32.
      inside: height and width of the part that the picture fills, from the upper left corner.

    Returns:
      `Regions` of the n pictures.
    """
    device = next(model.parameters()).device
    found = Regions.none(len(pictures), regions, sum(detector.map_channels(model)))
    if not len(pictures):
        return found
    with torch.inference_mode():
        output, raw = model(detector.to_input(pictures, device))
        limit = output.new_tensor([inside[1], inside[0], inside[1], inside[0]])
        best = best_regions(output, regions=regions, min_score=min_score, max_overlap=max_overlap)
        boxes = [torch.minimum(one[:, :4].clamp(min=0), limit) for one in best]
        pooled = pool(raw['feats'], model.stride.tolist(), boxes)
    for index, (one, corners, features) in enumerate(zip(best, boxes, pooled)):
        n = len(one)
        found.boxes[index, :n] = (corners / limit).cpu().numpy()
        found.classes[index, :n] = one[:, 5].cpu().numpy()
        found.scores[index, :n] = one[:, 4].cpu().numpy()
        found.features[index, :n] = features.cpu().numpy()
    return found


def pool(
    maps: list[torch.Tensor], strides: list[float], boxes: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Averages every map over every box (RoIAlign to one cell) and joins the maps' channels.

    Args:
      maps: (n, channels_i, H / stride_i, W / stride_i) each.
      boxes: n tensors (m, 4), xyxy in pixels.

    Returns:
      n tensors (m, sum of channels_i).
    """
    pooled = [
        roi_align(each, boxes, output_size=1, spatial_scale=1 / stride, aligned=True).flatten(1)
        for each, stride in zip(maps, strides)
    ]
    return list(torch.cat(pooled, 1).split([len(one) for one in boxes]))
