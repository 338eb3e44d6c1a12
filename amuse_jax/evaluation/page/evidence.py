"""What an example page shows of a video, beside the question and its answer."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

USUAL_SHAPE = (9, 16)  # of videos whose records do not say their shape


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The video as the model sees it, with T segments and K regions, and where the answer looked.

    Attributes:
      frames: (T, S, S, 3) uint8, one frame per segment, stretched to a square.
      shape: height and width of the video, in pixels.
      boxes: (T, K, 4), xyxy in [0, 1] of the picture.
      classes: (T, K), index into class_names; -1 for no region.
      class_names: names of the detector's classes.
      sources: (T, 22), how often each instrument sounds.
      rhythm: (T,), 1 if the tempo changes from this segment to the next.
      labels_from: where sources and rhythm come from, such as 'annotated'.
      segment_seconds: length of a segment.
      segment_mask: (T,) bool, False after the video's end; None if all segments exist.
      region_weights: (T, K), each region's share of the answer's attention to regions; None if it
        is not known; (T, 0) if the model has no regions.
      time_weights: (T,) for each stream, the answer's attention inside the stream to each segment;
        None if it is not known.
    """

    frames: np.ndarray
    shape: Sequence[int]
    boxes: np.ndarray
    classes: np.ndarray
    class_names: Sequence[str]
    sources: np.ndarray
    rhythm: np.ndarray
    labels_from: str
    segment_seconds: float
    segment_mask: np.ndarray | None = None
    region_weights: np.ndarray | None = None
    time_weights: Mapping[str, np.ndarray] | None = None

    @property
    def segments(self) -> int:
        """Number of segments up to the video's end, at least 1."""
        if self.segment_mask is None:
            return len(self.frames)
        present = np.flatnonzero(self.segment_mask)
        return int(present[-1]) + 1 if len(present) else 1

    def region_name(self, segment: int, region: int) -> str:
        """Return the name of a region's class, with spaces; '' if there is no such region."""
        index = self.classes[segment, region]
        return self.class_names[index].replace('_', ' ') if index >= 0 else ''


def attention_over_time(
    evidence: Evidence, importance: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Compute how much of the whole attention each stream gives to each segment.

    Args:
      evidence: the evidence, with time weights or without.
      importance: importance score of each stream; they sum to one.

    Returns:
      (T,) for each stream, the importance times the time weights, so that the sum over streams and
      segments is at most one; {} if the evidence has no time weights.
    """
    if evidence.time_weights is None:
        return {}
    return {
        name: weight * np.asarray(evidence.time_weights[name], float)
        for name, weight in importance.items()
    }
