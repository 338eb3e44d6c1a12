"""MUSIC-AVQA's annotation files, versions 1, 2 and R, and the folder they lie in.

rows.py reads rows, layout.py knows where files lie, splits.py makes splits of them, known.py holds
what is known of the published files, check.py compares a folder with it:

    python -m amuse_jax.music_avqa check --root=DIR --annotations=v1
"""

from amuse_jax.music_avqa.layout import SCHEMES, data_root, video_path
from amuse_jax.music_avqa.rows import REPHRASED, SPLITS, Question, fill, read_questions
from amuse_jax.music_avqa.splits import Annotations, read

__all__ = [
    'REPHRASED',
    'SCHEMES',
    'SPLITS',
    'Annotations',
    'Question',
    'data_root',
    'fill',
    'read',
    'read_questions',
    'video_path',
]
