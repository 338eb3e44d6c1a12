"""Rows of MUSIC-AVQA's annotation files become questions.

Versions 1 and 2 write the same row in several ways (keys left out, lists as text or as lists, ids
as numbers); all of them are read, and a row that cannot be read is named and left out.

MUSIC-AVQA-R rephrases each test question of version 1 many times. Its rows are read as its own
loader reads them (`dataset/avqa_dataset.py` of reml-group/MUSIC-AVQA-R: version 1's keys,
placeholders filled in order where there are any) and as its successor FortisAVQA prints them (the
README of reml-group/fortisavqa: questions filled already, no `templ_values`, and a key `split` that
is 'head' or 'tail'). R itself tells frequent (head) from rare (tail) answers by its files' names.
"""

import dataclasses
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import vocabulary

SPLITS = ('train', 'val', 'test')
REPHRASED = 'rephrased'  # the split of MUSIC-AVQA-R's questions
FREQUENCIES = ('head', 'tail')

_LONGEST_ID = 200  # bytes; with '.mp4' still a file name everywhere

# Writes values into messages in short: a damaged row may hold megabytes.
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 300
_shown = _SHOWN.repr


@dataclasses.dataclass(frozen=True)
class Question:
    """One row of an annotation file.

    Attributes:
      question_id: the file's own id, or '<file>:<row>' where the row has none. MUSIC-AVQA-R's rows
        have the id of the question that they rephrase.
      video_id: whose picture is seen.
      sound_id: whose audio is heard: `video_id`, or the row's `unmatch_audio`.
      split: 'train', 'val', 'test' or 'rephrased'.
      modality: 'Audio', 'Visual' or 'Audio-Visual'.
      kind: the type within the modality, such as 'Counting'.
      template: the question with its placeholders, byte for byte as in the file.
      values: what fills the placeholders, in order.
      text: the filled question, as `fill` writes it.
      answer: one of vocabulary.ANSWERS.
      frequency: 'head' or 'tail' where MUSIC-AVQA-R says how common the answer is, else ''.
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
        """What makes two rows the same question, whatever their ids: picture, sound and words."""
        return self.video_id, self.sound_id, self.text

    def to_json(self) -> dict:
        """The attributes by name, as `from_json` reads them."""
        return dataclasses.asdict(self) | {'values': list(self.values)}

    @classmethod
    def from_json(cls, row: Mapping) -> 'Question':
        """From what `to_json` returns; further keys may stand beside it."""
        attributes = {field.name: row[field.name] for field in dataclasses.fields(cls)}
        return cls(**attributes | {'values': tuple(row['values'])})


def fill(template: str, values: Sequence[str]) -> str:
    """The template with its placeholders filled in order, as plain text.

    The full-width question mark of one template becomes '?', the trailing space of two others goes.

    Raises:
      ValueError: there are more or fewer values than placeholders.
    """
    places = _places(template)
    if places != len(values):
        raise ValueError(f'{places} placeholders in {_shown(template)} but {len(values)} values')
    remaining = iter(values)
    text = vocabulary.PLACEHOLDER.sub(lambda _: next(remaining), template)
    return ' '.join(text.replace('\uff1f', '?').split())


def read_questions(path: Path, split: str) -> tuple[list[Question], list[str]]:
    """Reads one annotation file, row by row: a question that is written twice is read twice.

    Args:
      path: a JSON file holding a list of rows.
      split: what the questions belong to: 'train', 'val', 'test' or 'rephrased'.

    Returns:
      The questions in the file's order, and one sentence for every row that was left out, naming
      file and row (the first row is row 0).

    Raises:
      StageError: there is no such file, or it does not hold a JSON list.
    """
    numbered, complaints = read_rows(path, split)
    return [question for _, question in numbered], complaints


def read_rows(path: Path, split: str) -> tuple[list[tuple[int, Question]], list[str]]:
    """As `read_questions`, with the number of each question's row."""
    questions, complaints = [], []
    for number, row in enumerate(_rows_of(path)):
        try:
            questions.append((number, _question(row, split, path.stem, number)))
        except ValueError as error:
            complaints.append(f'{path.name}, row {number}: {error}')
    return questions, complaints


def plain_name(value, key: str) -> str:
    """The value if it can only name a file inside its folder.

    Raises:
      ValueError: it is no text, or holds what could lead elsewhere.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f'{key} is {_shown(value)}, expected the name of a video')
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ValueError(f'{key} {_shown(value)} cannot be a file name') from None
    if (
        value in ('.', '..')
        or size > _LONGEST_ID
        or not value.isprintable()
        or set(value) & {'/', '\\'}
    ):
        raise ValueError(f'{key} {_shown(value)} is not the plain name of a file in videos/')
    return value


def _rows_of(path: Path) -> list:
    try:
        rows = json.loads(path.read_text('utf-8-sig'))  # a BOM is no part of the text
    except FileNotFoundError:
        raise StageError(f'the annotation file {path} does not exist') from None
    except (ValueError, OSError, RecursionError) as error:
        raise StageError(
            f'{path} is not an annotation file: {error}; expected a JSON list of rows, as '
            'MUSIC-AVQA has them'
        ) from error
    if not isinstance(rows, list):
        raise StageError(
            f'{path} is not an annotation file: found a JSON {type(rows).__name__}, '
            'expected a list of rows, as MUSIC-AVQA has them'
        )
    return rows


def _question(row, split: str, file: str, number: int) -> Question:
    """Raises ValueError with the reason for a row that is not a question."""
    if not isinstance(row, dict):
        raise ValueError(f'found a {type(row).__name__}, expected an object with keys and values')
    kind = _strings(row, 'type')
    if kind not in vocabulary.TYPES:
        raise ValueError(f'the type {_shown(list(kind))} is not one of the nine of MUSIC-AVQA')
    answer = _string(row, 'anser').strip()
    if answer not in vocabulary.ANSWERS:
        raise ValueError(f'the answer {_shown(answer)} is not one of the {len(vocabulary.ANSWERS)}')
    template = _string(row, 'question_content')
    if split == REPHRASED:
        values, frequency = _values_of_rephrased(row, template), _frequency(row, file)
    else:
        values, frequency = _strings(row, 'templ_values'), ''
    text = fill(template, values)
    if not text:
        raise ValueError('the question is empty')
    video_id = plain_name(row.get('video_id'), 'video_id')
    # Version 2: picture from `video_id`, sound from `unmatch_audio`.
    sound_id = row.get('unmatch_audio')
    sound_id = video_id if _is_absent(sound_id) else plain_name(sound_id, 'unmatch_audio')
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


def _places(template: str) -> int:
    return len(vocabulary.PLACEHOLDER.findall(template))


def _values_of_rephrased(row: dict, template: str) -> tuple[str, ...]:
    """What fills the placeholders that the rephrasing kept; their values may stay behind."""
    values = () if _is_absent(row.get('templ_values')) else _strings(row, 'templ_values')
    return values[: _places(template)]


def _frequency(row: dict, file: str) -> str:
    mark = row.get('split')
    if _is_absent(mark):
        mark = file.rpartition('-')[2]  # avqa-test-head, -tail, or -headtail for all of them
        return mark if mark in FREQUENCIES else ''
    if mark not in FREQUENCIES:
        raise ValueError(f'split is {_shown(mark)}, expected head or tail')
    return mark


def _is_absent(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _question_id(value, fallback: str) -> str:
    if _is_absent(value):
        return fallback
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # tables written by pandas hold 47859.0
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return _writable(str(value), 'question_id')
    raise ValueError(f'question_id is {_shown(value)}, expected a number')


def _string(row: dict, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(
            f'{key} is {_shown(value)}, expected text' if key in row else f'{key} is missing'
        )
    return _writable(value, key)


def _strings(row: dict, key: str) -> tuple[str, ...]:
    """A list of strings, written as a list or as text holding a JSON list."""
    value = row.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f'{key} is {_shown(value)}, expected a list') from None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        if key not in row:
            raise ValueError(f'{key} is missing')
        raise ValueError(f'{key} is {_shown(value)}, expected a list of texts')
    return tuple(_writable(item, key) for item in value)


def _writable(text: str, key: str) -> str:
    """JSON can spell half of a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f'{key} holds {_shown(text)}, which is no text') from None
    return text
