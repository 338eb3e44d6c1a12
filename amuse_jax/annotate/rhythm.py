"""Beats are found here: the tempo of each snippet, and where it changes (Eq. 4-6 of the paper)."""

import dataclasses
from collections.abc import Callable

import numpy as np

from amuse_jax.annotate import tempo
from amuse_jax.errors import StageError

SHORTEST_SECONDS = 1.0  # a shorter snippet has no tempo
TRACKERS: dict[str, Callable[[np.ndarray, int], float]] = {
    'librosa': tempo.track,
    'tempo': tempo.estimate,
}


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """The rhythm annotation of one sound.

    Attributes:
      labels: (T,) float32 in {0, 1}: 1 where the tempo changes from this segment to the next.
      bpm: (T,) float32 beats per minute of each segment; 0 where it is silent or past the end.
      mean_bpm: beats per minute of the whole sound.
    """

    labels: np.ndarray
    bpm: np.ndarray
    mean_bpm: float


def annotate(
    waveform: np.ndarray,
    sample_rate: int,
    *,
    segments: int,
    segment_seconds: float,
    rhythm_seconds: float,
    threshold: float,
    tracker: str,
) -> Rhythm:
    """Label the T segments of a record.

    Beats are tracked in snippets of `rhythm_seconds` (Eq. 4). Where a snippet is not as long as a
    segment, `to_segments` maps labels and tempi to segments. Sound after the last segment is
    ignored.

    Args:
      waveform: (samples,) float32. Where it is shorter than T segments, the segments without sound
        get label 0 and 0 bpm.
      sample_rate: in Hz.
      segments: number of segments, T.
      segment_seconds: length of a record's segment.
      rhythm_seconds: length of a snippet, t of Eq. 4.
      threshold: share of the whole sound's tempo in Eq. 5.
      tracker: the beat tracker BT: 'librosa', or 'tempo' for the same number without placing beats.

    Raises:
      StageError: `tracker` is unknown.
    """
    if tracker not in TRACKERS:
        raise StageError(
            f'config.rhythm.tracker is {tracker!r}; expected ' + ' or '.join(map(repr, TRACKERS))
        )
    beats_per_minute = TRACKERS[tracker]
    waveform = waveform[: round(segments * segment_seconds * sample_rate)]
    pieces = snippets(waveform, sample_rate, rhythm_seconds)
    if not pieces:
        return Rhythm(np.zeros(segments, np.float32), np.zeros(segments, np.float32), 0.0)
    bpm = np.array([beats_per_minute(piece, sample_rate) for piece in pieces])
    mean_bpm = beats_per_minute(waveform, sample_rate)
    labels, bpm = to_segments(
        change_labels(bpm, mean_bpm, threshold), bpm, rhythm_seconds, segments, segment_seconds
    )
    return Rhythm(labels, bpm, mean_bpm)


def snippets(waveform: np.ndarray, sample_rate: int, seconds: float) -> list[np.ndarray]:
    """Cut a sound into snippets, Eq. 4: a_i = A[i t : (i + 1) t].

    The last snippet is dropped if it is shorter than SHORTEST_SECONDS.

    Args:
      waveform: (samples,).
      sample_rate: in Hz.
      seconds: length of a snippet, t.
    """
    edges = range(0, len(waveform), round(seconds * sample_rate))
    pieces = [waveform[edge : edge + edges.step] for edge in edges]
    return [piece for piece in pieces if len(piece) >= SHORTEST_SECONDS * sample_rate]


def change_labels(bpm: np.ndarray, mean_bpm: float, threshold: float) -> np.ndarray:
    """Label changes of tempo, Eq. 5-6: label_i = 1 if |bpm_i - bpm_{i+1}| > threshold * mean_bpm.

    All other labels are 0, also the last one, because the last snippet has no successor.

    Args:
      bpm: (n,) tempo of each snippet.
      mean_bpm: tempo of the whole sound, BT(A).
      threshold: share of `mean_bpm`; 0.25 in the paper.

    Returns:
      (n,) float32 in {0, 1}.
    """
    labels = np.zeros(len(bpm), np.float32)
    labels[:-1] = np.abs(np.diff(bpm)) > threshold * mean_bpm
    return labels


def to_segments(
    labels: np.ndarray,
    bpm: np.ndarray,
    rhythm_seconds: float,
    segments: int,
    segment_seconds: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Map the labels and tempi of n snippets to the T segments of a record.

    Label i marks a change at the end of snippet i, at (i + 1) t. A segment gets label 1 if a change
    lies in it or at its end. Its tempo is the mean over its snippets, weighted by their overlap
    with it. If segments are as long as snippets, labels and tempi stay as they are.

    Args:
      labels: (n,) in {0, 1}.
      bpm: (n,) beats per minute.
      rhythm_seconds: length of a snippet.
      segments: number of segments, T.
      segment_seconds: length of a segment.

    Returns:
      labels (T,) float32 in {0, 1} and bpm (T,) float32.
    """
    number = np.arange(len(labels))
    changes = (number[labels > 0] + 1) * rhythm_seconds
    segment_labels = np.zeros(segments, np.float32)
    at = np.ceil(changes / segment_seconds - 1e-6).astype(int) - 1
    segment_labels[at[at < segments]] = 1.0

    starts = np.arange(segments)[:, None] * segment_seconds
    overlap = np.minimum(starts + segment_seconds, (number + 1) * rhythm_seconds) - np.maximum(
        starts, number * rhythm_seconds
    )
    overlap = np.maximum(overlap, 0.0)  # (T, n) seconds
    covered = overlap.sum(axis=1)
    segment_bpm = overlap @ bpm / np.where(covered > 0, covered, 1.0)
    return segment_labels, segment_bpm.astype(np.float32)
