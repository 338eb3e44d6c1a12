"""The data set MUSIC-AVQA: its folder, its annotation files (versions 1, 2 and R), its vocabulary.

`layout` finds the annotation files and `video_files` the videos, `rows` reads their rows as
questions, `splits` makes the splits, `videos` interprets video names, and `vocabulary` lists
answers, question types and templates.
`published_files` holds hashes and counts of the published files; `check` and `probing` compare a
folder with them:

    python -m amuse_jax.music_avqa check --root=DIR --annotations=v1
"""

from amuse_jax.music_avqa.layout import SCHEMES, data_root
from amuse_jax.music_avqa.rows import REPHRASED, SPLITS, Question, fill, read_questions
from amuse_jax.music_avqa.splits import Annotations, read
from amuse_jax.music_avqa.video_files import exist as videos_exist
from amuse_jax.music_avqa.video_files import search as search_videos
from amuse_jax.music_avqa.video_files import video_path

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
    'search_videos',
    'video_path',
    'videos_exist',
]
