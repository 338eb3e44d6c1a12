"""True annotations of rendered performances, and the annotators' precision and recall on them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from amuse_jax.annotate import rhythm
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS


@dataclasses.dataclass(frozen=True)
class Score:
    """Precision and recall of binary annotations.

    Attributes:
      found: number of positives that the annotator found.
      true: number of positives in the truth.
      both: number of positives in the truth that the annotator found.
    """

    found: int
    true: int
    both: int

    @property
    def precision(self) -> float:
        """Share of the found positives that are in the truth; 0 if none was found."""
        return self.both / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the positives in the truth that were found; 0 if there are none."""
        return self.both / self.true if self.true else 0.0

    def to_json(self) -> dict:
        """Return the counts, the precision and the recall as JSON values."""
        return dataclasses.asdict(self) | {
            'precision': round(self.precision, 4),
            'recall': round(self.recall, 4),
        }


def score(found: np.ndarray, true: np.ndarray) -> Score:
    """Compare two bool arrays of the same shape."""
    return Score(int(found.sum()), int(true.sum()), int((found & true).sum()))


def rhythm_changes(
    truth: Mapping, segments: int, segment_seconds: float, threshold: float
) -> np.ndarray:
    """Compute the labels of Eq. 6 from the score's tempo instead of the beat tracker's.

    The tempo of a segment is the one that holds for the longest part of it. It is 0 if nobody plays
    in the segment, as for a beat tracker. The tempo of the whole performance is the mean over time.

    Args:
      truth: the contents of truth/ID.json.
      segments: number of segments T.
      segment_seconds: length of a segment.
      threshold: threshold of Eq. 5.

    Returns:
      (T,) bool; False after the performance's end.
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
    """Return whether each instrument is heard at any time of each segment, (T, 22) bool.

    Args:
      truth: the contents of truth/ID.json.
      segments: number of segments T.
      segment_seconds: length of a segment.
    """
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
    """Compute the precision and recall of the rhythm and source annotations.

    Args:
      truths: the contents of truth/ID.json for n performances.
      labels: (n, T) rhythm labels.
      sources: (n, T, 22) source frequencies; an instrument is found if its frequency is above 0.
      segment_seconds: length of a segment.
      threshold: threshold of Eq. 5.

    Returns:
      JSON values: 'performances', their number; and the numbers of `Score` for 'rhythm', for
      'sources' and, in 'instruments', for each instrument.
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
