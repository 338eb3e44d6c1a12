"""MUSIC-AVQA's annotation files and the folder they lie in."""

from amuse_jax.data.music_avqa.rows import (
    SPLITS,
    Question,
    annotation_path,
    data_root,
    fill,
    read_questions,
    video_path,
)

__all__ = [
    'SPLITS',
    'Question',
    'annotation_path',
    'data_root',
    'fill',
    'read_questions',
    'video_path',
]
