"""Object detection in pictures: the K best boxes with their classes, scores and features (3.3).

This module imports PyTorch, so only processes of the rois stage may import it.
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
    """K regions in each of n pictures, the best first.

    A picture with fewer than K regions is filled up with class -1 and zeros.

    Attributes:
      boxes: (n, K, 4) float16, xyxy in [0, 1] of the picture.
      classes: (n, K) int16.
      scores: (n, K) float16.
      features: (n, K, D) float16, the concatenated averages of the detector's three maps over the
        box.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    features: np.ndarray

    @classmethod
    def empty(cls, n: int, regions: int, feature_size: int) -> 'Regions':
        """Return the arrays for n pictures without any region."""
        return cls(
            np.zeros((n, regions, 4), np.float16),
            np.full((n, regions), -1, np.int16),
            np.zeros((n, regions), np.float16),
            np.zeros((n, regions, feature_size), np.float16),
        )


def best_regions(
    output: torch.Tensor, *, regions: int, min_score: float, max_overlap: float
) -> list[torch.Tensor]:
    """Apply non-maximum suppression within each class, and keep the best `regions` boxes.

    Args:
      output: (n, 4 + classes, anchors), the detector's output: centre x, centre y, width and height
        in pixels, then the scores.
      regions: largest number of boxes per picture.
      min_score: boxes need a score above it.
      max_overlap: highest IoU that a box may have with a better box of the same class.

    Returns:
      n tensors (at most `regions`, 6): xyxy, score, class; the best box first.
    """
    return non_max_suppression(
        output.clone(),  # the function changes its argument
        min_score,
        max_overlap,
        max_det=regions,
        max_time_img=float('inf'),  # with a limit it drops pictures if the machine is busy
        nc=output.shape[1] - 4,
    )


def find_regions(
    model: DetectionModel,
    pictures: np.ndarray,
    content_shape: tuple[int, int],
    *,
    regions: int,
    min_score: float,
    max_overlap: float,
) -> Regions:
    """Run the detector on n pictures and pool the features of their best regions.

    Args:
      model: the detector.
      pictures: uint8 (n, H, W, 3) RGB, H and W multiples of 32.
      content_shape: height and width of the part that the picture fills, from the upper left
        corner.
      regions: number of regions K per picture.
      min_score: see `best_regions`.
      max_overlap: see `best_regions`.
    """
    device = next(model.parameters()).device
    found = Regions.empty(len(pictures), regions, sum(detector.map_channels(model)))
    if not len(pictures):
        return found
    with torch.inference_mode():
        output, raw = model(detector.to_input(pictures, device))
        height, width = content_shape
        limit = output.new_tensor([width, height, width, height])
        best = best_regions(output, regions=regions, min_score=min_score, max_overlap=max_overlap)
        boxes = [torch.minimum(each[:, :4].clamp(min=0), limit) for each in best]
        pooled = pool(raw['feats'], model.stride.tolist(), boxes)
    for index, (detections, corners, features) in enumerate(zip(best, boxes, pooled)):
        n = len(detections)
        found.boxes[index, :n] = (corners / limit).cpu().numpy()
        found.classes[index, :n] = detections[:, 5].cpu().numpy()
        found.scores[index, :n] = detections[:, 4].cpu().numpy()
        found.features[index, :n] = features.cpu().numpy()
    return found


def pool(
    maps: list[torch.Tensor], strides: list[float], boxes: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Average every map over every box (RoIAlign to one cell) and concatenate the channels.

    Args:
      maps: tensors (n, channels_i, H / stride_i, W / stride_i).
      strides: pixels per cell of each map.
      boxes: n tensors (m, 4), xyxy in pixels.

    Returns:
      n tensors (m, sum of channels_i).
    """
    pooled = [
        roi_align(each, boxes, output_size=1, spatial_scale=1 / stride, aligned=True).flatten(1)
        for each, stride in zip(maps, strides)
    ]
    return list(torch.cat(pooled, 1).split([len(each) for each in boxes]))
