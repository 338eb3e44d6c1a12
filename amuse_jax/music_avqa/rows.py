"""Reads the rows of MUSIC-AVQA's annotation files as questions.

Versions 1 and 2 write the same row in several ways: keys may be missing, lists may be lists or text
and ids may be numbers. All of these are read. A row that cannot be read is reported and left out.

MUSIC-AVQA-R rephrases each test question of version 1 many times. Its rows are read in two forms.
Its own loader (`dataset/avqa_dataset.py` of reml-group/MUSIC-AVQA-R) expects version 1's keys and
fills placeholders in order, if there are any. Its successor FortisAVQA (README of
reml-group/fortisavqa) has questions that are filled already, no `templ_values`, and a key `split`
that is 'head' for frequent answers and 'tail' for rare ones. In MUSIC-AVQA-R the names of the files
show that.
"""

import dataclasses
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import vocabulary
from amuse_jax.system import files

SPLITS = ('train', 'val', 'test')
REPHRASED = 'rephrased'  # the split of MUSIC-AVQA-R's questions
FREQUENCIES = ('head', 'tail')

MAX_FILE_BYTES = 300_000_000  # MUSIC-AVQA-R, the largest known file, has about 60 MB
_READ_SECONDS = 300.0
_LONGEST_ID = 200  # bytes; with '.mp4' this is a valid file name on every system

# Shortens values in messages, because a damaged row may hold megabytes.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 300
_short_repr = _REPR.repr


@dataclasses.dataclass(frozen=True)
class Question:
    """One question about one video: one row of an annotation file.

    Attributes:
      question_id: the id in the file, or '<file>:<row>' if the row has none. Rows of MUSIC-AVQA-R
        have the id of the question that they rephrase.
      video_id: the video whose picture is shown.
      sound_id: the video whose sound is played: `video_id`, or the row's `unmatch_audio`.
      split: 'train', 'val', 'test' or 'rephrased'.
      modality: 'Audio', 'Visual' or 'Audio-Visual'.
      kind: the question type within the modality, such as 'Counting'.
      template: the question with its placeholders, byte for byte as in the file.
      values: values of the placeholders, in order.
      text: the filled question, from `fill`.
      answer: one of vocabulary.ANSWERS.
      frequency: 'head' or 'tail' if MUSIC-AVQA-R says how common the answer is, else ''.
    """

    question_id: str
    video_id: str
    sound_id: str
    split: str
    modality: str
    kind: str
    template: str
    values: tuple[str, ...]
    text: str
    answer: str
    frequency: str = ''

    @property
    def identity(self) -> tuple[str, str, str]:
        """Picture, sound and text; rows with the same identity are the same question."""
        return self.video_id, self.sound_id, self.text

    def to_json(self) -> dict:
        """Return the attributes by name, for `from_json`."""
        return dataclasses.asdict(self) | {'values': list(self.values)}

    @classmethod
    def from_json(cls, row: Mapping) -> 'Question':
        """Create a question from the result of `to_json`; additional keys are ignored."""
        attributes = {field.name: row[field.name] for field in dataclasses.fields(cls)}
        return cls(**attributes | {'values': tuple(row['values'])})


def fill(template: str, values: Sequence[str]) -> str:
    """Fill the placeholders of a template, in order, and return the plain question.

    The full-width question mark of one template becomes '?', and the trailing spaces of two others
    are removed.

    Raises:
      ValueError: there are more or fewer values than placeholders.
    """
    count = _count_placeholders(template)
    if count != len(values):
        raise ValueError(
            f'{count} placeholders in {_short_repr(template)} but {len(values)} values'
        )
    remaining = iter(values)
    text = vocabulary.PLACEHOLDER.sub(lambda _: next(remaining), template)
    return ' '.join(text.replace('\uff1f', '?').split())


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of one annotation file.

    Attributes:
      questions: the row number and the question of every readable row, in the file's order.
      malformed: one sentence for every row that cannot be read, with the names of the file and the
        row (the first row is row 0).
      deleted: the same for every row that its authors have marked as deleted.
    """

    questions: list[tuple[int, Question]]
    malformed: list[str]
    deleted: list[str]


def read_questions(path: Path, split: str) -> tuple[list[Question], list[str]]:
    """Read one annotation file; a question that is in it twice is returned twice.

    Args:
      path: a JSON file with a list of rows.
      split: the split of the questions: 'train', 'val', 'test' or 'rephrased'.

    Returns:
      The questions in the file's order, without those that their authors have deleted; and one
      sentence for every row that cannot be read.

    Raises:
      StageError: the file does not exist, or it does not hold a JSON list.
    """
    found = read_rows(path, split)
    return [question for _, question in found.questions], found.malformed


def read_rows(path: Path, split: str) -> Rows:
    """Read one annotation file; see `read_questions`."""
    found = Rows([], [], [])
    for number, row in enumerate(_rows_of(path)):
        where = f'{path.name}, row {number}'
        if isinstance(row, dict) and _is_deleted(row.get('question_deleted')):
            found.deleted.append(f'{where}: left out, because its question_deleted is set')
            continue
        try:
            found.questions.append((number, _question(row, split, path.stem, number)))
        except ValueError as error:
            found.malformed.append(f'{where}: {error}')
    return found


def read_file(path: Path) -> bytes:
    """Read an annotation file, or another file of a data set that is no video.

    Raises:
      OSError: see `files.read_bytes`.
    """
    return files.read_bytes(path, MAX_FILE_BYTES, _READ_SECONDS)


def plain_name(value, key: str) -> str:
    """Return `value` unchanged if it is a plain file name, which cannot lead out of its folder.

    Args:
      value: the value from an annotation file, of any type.
      key: its key, for the error message.

    Raises:
      ValueError: the value is not text, is empty, too long or not printable, or contains a path.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f'{key} is {_short_repr(value)}, expected the name of a video')
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ValueError(f'{key} {_short_repr(value)} cannot be a file name') from None
    if (
        value in ('.', '..')
        or size > _LONGEST_ID
        or not value.isprintable()
        or set(value) & {'/', '\\'}
    ):
        raise ValueError(f'{key} {_short_repr(value)} is not the plain name of a file in videos/')
    return value


def _rows_of(path: Path) -> list:
    try:
        content = read_file(path)
        rows = json.loads(content.decode('utf-8-sig'))  # utf-8-sig skips a byte order mark
    except FileNotFoundError:
        raise StageError(f'the annotation file {path} does not exist') from None
    except (ValueError, OSError, RecursionError) as error:
        raise StageError(
            f'{path} is not an annotation file: {error}; expected a JSON list of rows, as in '
            'MUSIC-AVQA'
        ) from error
    if not isinstance(rows, list):
        raise StageError(
            f'{path} is not an annotation file: found a JSON {type(rows).__name__}, '
            'expected a list of rows, as in MUSIC-AVQA'
        )
    return rows


def _question(row, split: str, file: str, number: int) -> Question:
    """Return the question of a row, or raise ValueError with the reason why it has none."""
    if not isinstance(row, dict):
        raise ValueError(f'found a {type(row).__name__}, expected an object with keys and values')
    kind = _strings(row, 'type')
    if kind not in vocabulary.TYPES:
        raise ValueError(f'the type {_short_repr(list(kind))} is not one of the nine of MUSIC-AVQA')
    answer = _string(row, 'anser').strip()
    if answer not in vocabulary.ANSWERS:
        raise ValueError(
            f'the answer {_short_repr(answer)} is not one of the {len(vocabulary.ANSWERS)}'
        )
    template = _string(row, 'question_content')
    if split == REPHRASED:
        values, frequency = _values_of_rephrased(row, template), _frequency(row, file)
    else:
        values, frequency = _strings(row, 'templ_values'), ''
    text = fill(template, values)
    if not text:
        raise ValueError('the question is empty')
    video_id = plain_name(row.get('video_id'), 'video_id')
    # In version 2 the sound may be from another video, `unmatch_audio`.
    sound_id = row.get('unmatch_audio')
    sound_id = video_id if _is_missing(sound_id) else plain_name(sound_id, 'unmatch_audio')
    return Question(
        question_id=_question_id(row.get('question_id'), f'{file}:{number}'),
        video_id=video_id,
        sound_id=sound_id,
        split=split,
        modality=kind[0],
        kind=kind[1],
        template=template,
        values=values,
        text=text,
        answer=answer,
        frequency=frequency,
    )


def _count_placeholders(template: str) -> int:
    return len(vocabulary.PLACEHOLDER.findall(template))


def _values_of_rephrased(row: dict, template: str) -> tuple[str, ...]:
    """Return the values of the placeholders in a rephrased question.

    The row may still list values of placeholders that the rephrasing has removed.
    """
    values = () if _is_missing(row.get('templ_values')) else _strings(row, 'templ_values')
    return values[: _count_placeholders(template)]


def _frequency(row: dict, file: str) -> str:
    """Return 'head', 'tail' or '' from the row's key `split`, or from the file's name."""
    frequency = row.get('split')
    if _is_missing(frequency):
        # The files are avqa-test-head, avqa-test-tail, and avqa-test-headtail with both kinds.
        frequency = file.rpartition('-')[2]
        return frequency if frequency in FREQUENCIES else ''
    if frequency not in FREQUENCIES:
        raise ValueError(f'split is {_short_repr(frequency)}, expected head or tail')
    return frequency


def _is_missing(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_deleted(value) -> bool:
    """Return whether a row's `question_deleted` is set; it may be a number, a text or missing."""
    return not _is_missing(value) and value not in (0, '0', '', 'false', 'False')


def _question_id(value, fallback: str) -> str:
    if _is_missing(value):
        return fallback
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas writes 47859.0
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return _encodable(str(value), 'question_id')
    raise ValueError(f'question_id is {_short_repr(value)}, expected a number')


def _string(row: dict, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(
            f'{key} is {_short_repr(value)}, expected text' if key in row else f'{key} is missing'
        )
    return _encodable(value, key)


def _strings(row: dict, key: str) -> tuple[str, ...]:
    """Return a list of strings from a list, or from text that holds a JSON list."""
    value = row.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f'{key} is {_short_repr(value)}, expected a list') from None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        if key not in row:
            raise ValueError(f'{key} is missing')
        raise ValueError(f'{key} is {_short_repr(value)}, expected a list of texts')
    return tuple(_encodable(item, key) for item in value)


def _encodable(text: str, key: str) -> str:
    """Return the text if UTF-8 can encode it.

    JSON can contain half of a surrogate pair, which cannot be written to a file.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f'{key} holds {_short_repr(text)}, which is not valid text') from None
    return text
