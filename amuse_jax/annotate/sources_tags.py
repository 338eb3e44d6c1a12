"""Source frequencies from an audio tagger, HTS-AT, instead of separated stems.

An instrument sounds in a window where the mean score of one of its AudioSet classes (see audioset)
is at least a threshold; its frequency in a segment is the share of such windows. So unlike with
stems, two violins count as one.
"""

import numpy as np

from amuse_jax.pretrained import audioset
from amuse_jax.pretrained.tagging import Found


def frequencies(
    found: Found,
    *,
    segments: int,
    segment_seconds: float,
    window_seconds: float,
    threshold: float,
) -> np.ndarray:
    """Counts the instruments in every segment.

    Args:
      found: the tagged sound; past its end it is silent.
      segments: T.
      segment_seconds: length of a segment; a multiple of `window_seconds`.
      window_seconds: length of a window.
      threshold: score in [0, 1] from which a class is heard.

    Returns:
      (T, 22) float32 in [0, 1].
    """
    per_segment = round(segment_seconds / window_seconds)
    windows = segments * per_segment
    middles = (np.arange(len(found.timeline)) + 0.5) * found.step_seconds
    window_of = (middles / window_seconds).astype(int)
    scores = np.zeros((windows, found.timeline.shape[1]))
    for window in range(windows):
        inside = found.timeline[window_of == window]
        if len(inside):
            scores[window] = inside.mean(0)
    labels = {name: index for index, name in enumerate(audioset.names())}
    heard = np.stack(
        [
            (scores[:, list(classes)] >= threshold).any(1)
            for classes in audioset.class_indices(labels)
        ],
        axis=1,
    )  # (windows, 22)
    return heard.reshape(segments, per_segment, -1).mean(1).astype(np.float32)
