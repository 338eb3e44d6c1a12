"""Source frequencies from the audio tagger HTS-AT instead of separated stems.

An instrument sounds in a window if the mean score of one of its AudioSet classes (see audioset) is
at least a threshold. Its frequency in a segment is the share of windows in which it sounds. Unlike
with stems, two violins therefore count as one.
"""

import numpy as np

from amuse_jax.annotate import sources
from amuse_jax.pretrained import audioset
from amuse_jax.pretrained.tagging import SoundTags


def frequencies(
    tags: SoundTags,
    *,
    segments: int,
    segment_seconds: float,
    window_seconds: float,
    threshold: float,
) -> np.ndarray:
    """Compute the frequency of every instrument in every segment.

    Args:
      tags: tags of the sound; after its end it is silent.
      segments: number of segments T.
      segment_seconds: length of a segment; a multiple of `window_seconds`.
      window_seconds: length of a window.
      threshold: lowest score, in [0, 1], at which a class is heard.

    Returns:
      (T, 22) float32 in [0, 1].

    Raises:
      StageError: a segment is not a whole number of windows.
    """
    per_segment = sources.windows_per_segment(segment_seconds, window_seconds)
    windows = segments * per_segment
    middles = (np.arange(len(tags.timeline)) + 0.5) * tags.step_seconds
    window_of = (middles / window_seconds).astype(int)
    scores = np.zeros((windows, tags.timeline.shape[1]))
    for window in range(windows):
        inside = tags.timeline[window_of == window]
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
