"""Where the rhythm changes: Eq. 4-6 of the paper."""

import dataclasses
from collections.abc import Callable

import numpy as np

from amuse_jax.annotate import tempo
from amuse_jax.errors import StageError

SHORTEST_SECONDS = 1.0  # of sound in a segment; in less, no tempo can be told
TRACKERS: dict[str, Callable[[np.ndarray, int], float]] = {
    'librosa': tempo.track,
    'tempo': tempo.estimate,
}


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """The rhythm annotation of one audio.

    Attributes:
      labels: (T,) float32 in {0, 1}: 1 where the tempo changes from this segment to the next.
      bpm: (T,) float32 beats per minute of each segment; 0 where it is silent or past the end.
      mean_bpm: beats per minute of the whole audio.
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
    """Labels the T segments of a record.

    Beats are tracked in snippets of `rhythm_seconds` (Eq. 4), which need not be the record's
    segments: `to_segments` then carries labels and tempi over. Sound behind the last segment is
    left out.

    Args:
      waveform: (samples,) float32; shorter than T segments: what is missing has label 0 and 0 bpm.
      sample_rate: Hz.
      segments: T.
      segment_seconds: length of a record's segment.
      rhythm_seconds: t of Eq. 4.
      threshold: share of the whole audio's tempo in Eq. 5.
      tracker: BT: 'librosa' is its beat tracker, 'tempo' the same number without placing beats.

    Raises:
      StageError: another tracker is named.
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
    """Eq. 4: a_i = A[i t : (i + 1) t].

    A last snippet of less than SHORTEST_SECONDS is left out.

    Args:
      waveform: (samples,).
      sample_rate: Hz.
      seconds: t.
    """
    edges = range(0, len(waveform), round(seconds * sample_rate))
    pieces = [waveform[edge : edge + edges.step] for edge in edges]
    return [piece for piece in pieces if len(piece) >= SHORTEST_SECONDS * sample_rate]


def change_labels(bpm: np.ndarray, mean_bpm: float, threshold: float) -> np.ndarray:
    """Eq. 5-6: label_i = 1 if |bpm_i - bpm_{i+1}| > threshold * mean_bpm, else 0.

    The last snippet has no successor and gets 0.

    Args:
      bpm: (n,) tempo of each snippet.
      mean_bpm: BT(A), the tempo of the whole audio.
      threshold: share of `mean_bpm`; the paper's is 0.25.

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
    """Carries the annotation of n snippets over to a record's T segments.

    Label i tells of a change at the snippet's end, (i + 1) t; a segment is labelled 1 if any change
    lies in it or at its end. Its tempo is that of the snippets in it, weighed by how much each
    fills of it. With segments as long as snippets both are the snippets' own.

    Args:
      labels: (n,) in {0, 1}.
      bpm: (n,).
      rhythm_seconds: length of a snippet.
      segments: T.
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
