"""Which published test set some questions are, told by how many of each type there are.

Only rows that answer the same questions may stand beside each other, whatever the folder of the
data set is called.
"""

import dataclasses
import re
from collections.abc import Sequence

from amuse_jax.data.music_avqa import Question
from amuse_jax.evaluation import tables

_MAX_MISSING = 0.05  # of questions or videos that could not be used
_FIRST_VERSION_ID = re.compile(r'(|sa|va|vv|esa|eva|evv)\d{8}')


@dataclasses.dataclass(frozen=True)
class TestSet:
    """A published test set.

    Attributes:
      name: for people.
      published: which rows of published.csv answer it, 'v1' or 'v2'; '': none.
      counts: its questions per type, in the order of vocabulary.TYPES.
      videos: how many videos they ask about.
      first_version: whether these are all of MUSIC-AVQA's first version.
    """

    name: str
    published: str
    counts: tuple[int, ...]
    videos: int
    first_version: bool

    @property
    def questions(self) -> int:
        return sum(self.counts)


# Counted from the annotation files. Table 3's visual averages fit the balanced set's counts alone.
KNOWN = (
    TestSet(
        'MUSIC-AVQA v1 (json_update)', 'v1',
        (1017, 594, 1197, 1225, 988, 1265, 920, 1101, 822), 6399, True,
    ),
    TestSet(
        'MUSIC-AVQA v1 (json, 55 questions twice)', 'v1',
        (1022, 601, 1199, 1228, 995, 1274, 927, 1115, 824), 6399, True,
    ),
    TestSet(
        'MUSIC-AVQA v2, balanced', 'v2',
        (1382, 643, 1505, 1338, 1223, 1740, 920, 1101, 967), 7138, False,
    ),
    TestSet(
        'MUSIC-AVQA v2, biased', '',
        (1022, 607, 1222, 1230, 901, 1292, 920, 1101, 824), 6456, False,
    ),
)  # fmt: skip


def recognise(questions: Sequence[Question]) -> TestSet | None:
    """The published test set that the questions are, but for a few whose videos are missing.

    Returns:
      The one that lacks least; None where there are more questions of a type than a set has, or
      more than one in twenty questions or videos are missing.
    """
    found = [int(n) for n in (tables.counts(questions)[c] for c in tables.TYPE_COLUMNS)]
    videos = {question.video_id for question in questions}
    of_first = sum(_FIRST_VERSION_ID.fullmatch(name) is not None for name in videos)
    fitting = [
        known
        for known in KNOWN
        if of_first > len(videos) / 2  # version 2 has nine tenths of its videos from there
        and known.first_version == (of_first == len(videos))
        and all(have <= full for have, full in zip(found, known.counts))
        and sum(found) >= (1 - _MAX_MISSING) * known.questions
        and (1 - _MAX_MISSING) * known.videos <= len(videos) <= known.videos
    ]
    return min(fitting, key=lambda known: known.questions, default=None)
