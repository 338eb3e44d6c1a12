"""What the annotators should have found in rendered performances, and how well they did."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from amuse_jax.annotate import rhythm
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS


@dataclasses.dataclass(frozen=True)
class Score:
    """Precision and recall of yes-or-no annotations.

    Attributes:
      found: how many the annotator marked.
      true: how many there are.
      both: how many of the true ones it marked.
    """

    found: int
    true: int
    both: int

    @property
    def precision(self) -> float:
        """Share of the marked ones that are true; 0 where none is marked."""
        return self.both / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the true ones that are marked; 0 where there are none."""
        return self.both / self.true if self.true else 0.0

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {
            'precision': round(self.precision, 4),
            'recall': round(self.recall, 4),
        }


def score(found: np.ndarray, true: np.ndarray) -> Score:
    """Compares two bool arrays of one shape."""
    return Score(int(found.sum()), int(true.sum()), int((found & true).sum()))


def rhythm_changes(
    truth: Mapping, segments: int, segment_seconds: float, threshold: float
) -> np.ndarray:
    """Eq. 6 with the score's own tempo in place of the beat tracker's.

    A segment's tempo is the one that holds for the longest part of it, and 0 where nobody plays, as
    a beat tracker would say; the whole performance's is the mean over time.

    Args:
      truth: of a performance, as truth/ID.json holds it.
      segments: T.
      segment_seconds: length of a segment.
      threshold: of Eq. 5.

    Returns:
      (T,) bool; False after the end.
    """
    starts, tempi = (np.array(column, float) for column in zip(*truth['tempo']))
    ends = np.append(starts[1:], truth['seconds'])
    edges = np.arange(segments)[:, None] * segment_seconds
    shares = np.minimum(ends, edges + segment_seconds) - np.maximum(starts, edges)  # (T, tempi)
    bpm = tempi[shares.argmax(axis=1)] * active(truth, segments, segment_seconds).any(axis=1)
    bpm = bpm[: max(1, round(truth['seconds'] / segment_seconds))]
    changes = np.zeros(segments, bool)
    mean_bpm = np.average(tempi, weights=ends - starts)
    labels = rhythm.change_labels(bpm, mean_bpm, threshold)[:segments]
    changes[: len(labels)] = labels > 0
    return changes


def active(truth: Mapping, segments: int, segment_seconds: float) -> np.ndarray:
    """(T, 22) bool: whether the instrument is heard at any time of the segment."""
    result = np.zeros((segments, len(INSTRUMENTS)), bool)
    edges = np.arange(segments) * segment_seconds
    for performer in truth['performers']:
        instrument = INSTRUMENTS.index(performer['heard_instrument'])
        for start, end in performer['intervals']:
            result[:, instrument] |= (start < edges + segment_seconds) & (end > edges)
    return result


def report(
    truths: Sequence[Mapping],
    labels: np.ndarray,
    sources: np.ndarray,
    segment_seconds: float,
    threshold: float,
) -> dict:
    """Precision and recall of both annotators.

    Args:
      truths: of n performances.
      labels: (n, T) rhythm labels.
      sources: (n, T, 22) source frequencies; an instrument is found where it is above 0.
      segment_seconds: length of a segment.
      threshold: of Eq. 5.

    Returns:
      JSON values: `performances`, and for `rhythm`, `sources` and each of `instruments` the numbers
      of `Score`.
    """
    segments = labels.shape[1]
    changes = [rhythm_changes(t, segments, segment_seconds, threshold) for t in truths]
    heard = np.stack([active(t, segments, segment_seconds) for t in truths])
    found = sources > 0
    return {
        'performances': len(truths),
        'rhythm': score(labels > 0, np.stack(changes)).to_json(),
        'sources': score(found, heard).to_json(),
        'instruments': {
            name: score(found[..., index], heard[..., index]).to_json()
            for index, name in enumerate(INSTRUMENTS)
        },
    }
