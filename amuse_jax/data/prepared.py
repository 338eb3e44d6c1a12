"""The folder that the prepare stage leaves, for the stages that read it.

`videos.json` lists the records in order, `questions.json` lists all questions with their records,
and `records/` holds the arrays.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from amuse_jax.data.records import RecordReader
from amuse_jax.music_avqa.rows import Question
from amuse_jax.system.files import write_json

_VIDEOS, _QUESTIONS, _RECORDS = 'videos.json', 'questions.json', 'records'


class Prepared:
    """The folder of the prepare stage.

    Every file is read when it is first asked for, because each stage needs only some of them.

    Attributes:
      folder: the stage's folder.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    @property
    def questions_file(self) -> Path:
        """The path of questions.json."""
        return self.folder / _QUESTIONS

    @property
    def records_folder(self) -> Path:
        """The path of the folder with the record shards."""
        return self.folder / _RECORDS

    @functools.cached_property
    def videos(self) -> list[dict]:
        """One entry per record: 'video_id', 'sound_id', 'seconds', 'shard' and 'position'."""
        return json.loads((self.folder / _VIDEOS).read_text('utf-8'))

    @functools.cached_property
    def rows(self) -> list[dict]:
        """One entry per question: the attributes of `Question`, and 'record', an index into videos.

        Rephrased questions form a split of their own, 'rephrased'.
        """
        return json.loads(self.questions_file.read_text('utf-8'))

    def questions(self, split: str | None = None) -> list[Question]:
        """Return the questions of a split, or all of them, in the order of `rows`."""
        return [Question.from_json(row) for row in self.rows if split in (None, row['split'])]

    def records_of(self, split: str) -> set[int]:
        """Return the indices of the records that have questions in a split."""
        return {row['record'] for row in self.rows if row['split'] == split}

    def reader(self) -> RecordReader:
        """Open the records for reading.

        Raises:
          StageError: shards are missing, damaged or of a newer version.
        """
        return RecordReader(self.records_folder)


def write_tables(folder: Path, videos: Sequence[Mapping], rows: Iterable[Mapping]) -> None:
    """Write `videos.json` and `questions.json`; see `Prepared` for their entries."""
    write_json(folder / _VIDEOS, list(videos))
    write_json(folder / _QUESTIONS, list(rows))
