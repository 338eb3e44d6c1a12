"""Evidence about a video that does not exist, for the tests of example pages."""

import numpy as np

from amuse_jax.evaluation.page.evidence import Evidence
from amuse_jax.music_avqa import vocabulary

CELLO, VIOLIN = (vocabulary.INSTRUMENTS.index(name) for name in ('cello', 'violin'))
STREAMS = ('visual', 'audio', 'regions')


def make_evidence(segments=10, shape=(9, 16), **changes):
    """A violin and a player in every frame; a cello sounds in the first half."""
    random = np.random.default_rng(0)
    sources = np.zeros((segments, 22), np.float32)
    sources[: segments // 2, CELLO] = 1
    regions = np.full((segments, 2), 0.5 / segments, np.float32)
    fields = {
        'frames': random.integers(0, 255, (segments, 32, 32, 3), dtype=np.uint8),
        'shape': shape,
        'boxes': np.tile(np.array([0.1, 0.2, 0.5, 0.9], np.float16), (segments, 2, 1)),
        'classes': np.array([[VIOLIN, 22]] * segments, np.int16),
        'class_names': [*vocabulary.INSTRUMENTS, 'player'],
        'sources': sources,
        'rhythm': np.eye(1, segments, 1, dtype=np.float32)[0],
        'labels_from': 'annotated',
        'segment_seconds': 6.0,
        'region_weights': regions,
        'time_weights': {name: np.full(segments, 1 / segments) for name in STREAMS},
    }
    return Evidence(**(fields | changes))
