"""Recognition of published test sets, from the annotation scheme and the questions per type.

A table may compare only rows over the same questions, whatever the data set's folder is called. The
numbers of questions alone do not identify a test set. In version 1 as first published, some
questions occur twice, and only one of their answers is kept (music_avqa/splits.py). The rest has as
many questions as the corrected version, but some have another answer.
"""

import dataclasses
import re
from collections.abc import Sequence

from amuse_jax.evaluation import tables
from amuse_jax.music_avqa import Question, layout, published_files

MAX_MISSING = 0.05  # share of questions or videos that may be missing
_FIRST_VERSION_ID = re.compile(r'(|sa|va|vv|esa|eva|evv)\d{8}')


@dataclasses.dataclass(frozen=True)
class TestSet:
    """A published test set.

    Attributes:
      name: name for tables and notes.
      published: 'v1', 'v2' or 'v2-bias', the test set of its rows in published.csv.
      scheme: value of `data.annotations` with which its file is read.
    """

    name: str
    published: str
    scheme: str

    @property
    def first_version(self) -> bool:
        """Whether all of its videos are videos of MUSIC-AVQA's first version."""
        return self.scheme.startswith('v1')

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of questions per type, in the order of vocabulary.TYPES."""
        return self._file.types

    @property
    def questions(self) -> int:
        """Number of questions."""
        return self._file.rows

    @property
    def videos(self) -> int:
        """Number of videos that the questions are about."""
        return self._file.videos

    @property
    def _file(self) -> published_files.PublishedFile:
        return published_files.FILES[layout.FILES[self.scheme]['test'][0]]


# Table 3 is on the balanced set: its visual averages fit only the numbers of that set's questions.
KNOWN = (
    TestSet('MUSIC-AVQA v1 (json_update)', 'v1', 'v1'),
    TestSet('MUSIC-AVQA v1 (json, 55 questions twice)', 'v1', 'v1-json'),
    TestSet('MUSIC-AVQA v2, balanced', 'v2', 'v2-balance'),
    TestSet('MUSIC-AVQA v2, biased', 'v2-bias', 'v2-bias'),
)


def recognise(questions: Sequence[Question], scheme: str) -> TestSet | None:
    """Find the published test set of the questions; a few questions and videos may be missing.

    A test set does not fit if it has fewer questions of a type, or if more than one in twenty of
    its questions or videos are missing.

    Args:
      questions: the test questions.
      scheme: value of `data.annotations` with which they were read; 'plain' may be any of KNOWN.

    Returns:
      The test set with the fewest missing questions; None if no test set fits.
    """
    counts = [int(n) for n in (tables.counts(questions)[c] for c in tables.TYPE_COLUMNS)]
    videos = {question.video_id for question in questions}
    first_version_videos = sum(_FIRST_VERSION_ID.fullmatch(name) is not None for name in videos)
    fitting = [
        test_set
        for test_set in KNOWN
        if scheme in (test_set.scheme, 'plain')
        and first_version_videos > len(videos) / 2  # version 2 has 90 % of its videos from it
        and test_set.first_version == (first_version_videos == len(videos))
        and all(count <= full for count, full in zip(counts, test_set.counts))
        and sum(counts) >= (1 - MAX_MISSING) * test_set.questions
        and (1 - MAX_MISSING) * test_set.videos <= len(videos) <= test_set.videos
    ]
    return min(fitting, key=lambda test_set: test_set.questions, default=None)
