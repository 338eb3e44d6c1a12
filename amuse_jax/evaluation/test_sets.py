"""Which published test set some questions are, told by the annotation files they were read from and
by how many of each type there are.

Only rows that answer the same questions may stand beside each other, whatever the folder of the
data set is called. Counts alone do not tell: of version 1 as first published, doubled questions
keep one answer (music_avqa/splits.py), and what stays is as many as in the correction, some
of them with another answer.
"""

import dataclasses
import re
from collections.abc import Sequence

from amuse_jax.evaluation import tables
from amuse_jax.music_avqa import Question, layout, published_files

_MAX_MISSING = 0.05  # of questions or videos that could not be used
_FIRST_VERSION_ID = re.compile(r'(|sa|va|vv|esa|eva|evv)\d{8}')


@dataclasses.dataclass(frozen=True)
class TestSet:
    """A published test set.

    Attributes:
      name: for people.
      published: which rows of published.csv answer it, 'v1' or 'v2'; '': none.
      scheme: the `data.annotations` that read its file.
    """

    name: str
    published: str
    scheme: str

    @property
    def first_version(self) -> bool:
        """Whether all of its videos are MUSIC-AVQA's first version's."""
        return self.scheme.startswith('v1')

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows per type, in the order of vocabulary.TYPES."""
        return self._file.types

    @property
    def questions(self) -> int:
        return self._file.rows

    @property
    def videos(self) -> int:
        """How many videos they ask about."""
        return self._file.videos

    @property
    def _file(self) -> published_files.KnownFile:
        return published_files.FILES[layout.FILES[self.scheme]['test'][0]]


# Table 3's visual averages fit the balanced set's counts alone.
KNOWN = (
    TestSet('MUSIC-AVQA v1 (json_update)', 'v1', 'v1'),
    TestSet('MUSIC-AVQA v1 (json, 55 questions twice)', 'v1', 'v1-json'),
    TestSet('MUSIC-AVQA v2, balanced', 'v2', 'v2-balance'),
    TestSet('MUSIC-AVQA v2, biased', '', 'v2-bias'),
)


def recognise(questions: Sequence[Question], scheme: str) -> TestSet | None:
    """The published test set that the questions are, but for a few whose videos are missing.

    Args:
      questions: any.
      scheme: the `data.annotations` that they were read by; 'plain' may be any of KNOWN.

    Returns:
      The one that lacks least; None where there are more questions of a type than a set has, or
      more than one in twenty questions or videos are missing.
    """
    found = [int(n) for n in (tables.counts(questions)[c] for c in tables.TYPE_COLUMNS)]
    videos = {question.video_id for question in questions}
    of_first = sum(_FIRST_VERSION_ID.fullmatch(name) is not None for name in videos)
    fitting = [
        test_set
        for test_set in KNOWN
        if scheme in (test_set.scheme, 'plain')
        and of_first > len(videos) / 2  # version 2 has nine tenths of its videos from there
        and test_set.first_version == (of_first == len(videos))
        and all(have <= full for have, full in zip(found, test_set.counts))
        and sum(found) >= (1 - _MAX_MISSING) * test_set.questions
        and (1 - _MAX_MISSING) * test_set.videos <= len(videos) <= test_set.videos
    ]
    return min(fitting, key=lambda test_set: test_set.questions, default=None)
