"""MUSIC-AVQA's annotation files and the folder they lie in: rows become questions.

A data set is `ROOT/videos/<video_id>.mp4` with `ROOT/avqa-{train,val,test}.json`. Versions 1 and 2
of MUSIC-AVQA write the same row in several ways (keys left out, lists as text or as lists, ids as
numbers); all of them are read, and a row that cannot be read is named and left out.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax import stages
from amuse_jax.data import vocabulary

SPLITS = ('train', 'val', 'test')

_PLACEHOLDER = re.compile(r'<[^<>]+>')
_LONGEST_ID = 200  # bytes; with '.mp4' still a file name everywhere


@dataclasses.dataclass(frozen=True)
class Question:
    """One row of an annotation file.

    Attributes:
      question_id: the file's own id, or '<file>:<row>' where the row has none.
      video_id: whose picture is seen.
      sound_id: whose audio is heard: `video_id`, or the row's `unmatch_audio`.
      split: 'train', 'val' or 'test'.
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


def data_root(config: ConfigDict, inputs: Mapping[str, Path]) -> Path:
    """The folder of the data set: `config.data.root`, or what the render stage wrote.

    Raises:
      StageError: neither is there.
    """
    root = Path(config.data.root) if config.data.root else inputs.get('render')
    if root is None:
        raise stages.StageError(
            'there is no data set: set --config.data.root to a folder with videos/ and '
            'avqa-{train,val,test}.json, or --config.synthetic.videos to render one'
        )
    if not root.is_dir():
        raise stages.StageError(
            f'the data set folder {root} does not exist; expected a folder with videos/ and '
            'avqa-{train,val,test}.json (data.root in the config)'
        )
    return root


def annotation_path(root: Path, split: str) -> Path:
    return root / f'avqa-{split}.json'


def video_path(root: Path, video_id: str) -> Path:
    """Where a video lies: always inside `root`, whatever an annotation file says.

    Raises:
      ValueError: `video_id` is not a plain file name.
    """
    return root / 'videos' / f'{_plain_name(video_id, "video_id")}.mp4'


def fill(template: str, values: Sequence[str]) -> str:
    """The template with its placeholders filled in order, as plain text.

    The full-width question mark of one template becomes '?', the trailing space of two others goes.

    Raises:
      ValueError: there are more or fewer values than placeholders.
    """
    places = len(_PLACEHOLDER.findall(template))
    if places != len(values):
        raise ValueError(f'{places} placeholders in {template!r} but {len(values)} values')
    remaining = iter(values)
    text = _PLACEHOLDER.sub(lambda _: next(remaining), template)
    return ' '.join(text.replace('\uff1f', '?').split())


def read_questions(path: Path, split: str) -> tuple[list[Question], list[str]]:
    """Reads one annotation file.

    Args:
      path: a JSON file holding a list of rows.
      split: what the questions belong to: 'train', 'val' or 'test'.

    Returns:
      The questions in the file's order, and one sentence for every row that was left out, naming
      file and row (the first row is row 0).

    Raises:
      StageError: there is no such file, or it does not hold a JSON list.
    """
    questions, complaints = [], []
    for number, row in enumerate(_read_rows(path)):
        try:
            questions.append(_question(row, split, f'{path.stem}:{number}'))
        except ValueError as error:
            complaints.append(f'{path.name}, row {number}: {error}')
    return questions, complaints


def _read_rows(path: Path) -> list:
    try:
        rows = json.loads(path.read_text('utf-8-sig'))  # a BOM is no part of the text
    except FileNotFoundError:
        raise stages.StageError(
            f'the annotation file {path} does not exist; a data set holds avqa-train.json, '
            'avqa-val.json and avqa-test.json beside its folder videos/'
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise stages.StageError(
            f'{path} is not an annotation file: {error}; expected a JSON list of rows, as '
            'MUSIC-AVQA has them'
        ) from error
    if not isinstance(rows, list):
        raise stages.StageError(
            f'{path} is not an annotation file: found a JSON {type(rows).__name__}, '
            'expected a list of rows, as MUSIC-AVQA has them'
        )
    return rows


def _question(row, split: str, fallback_id: str) -> Question:
    """Raises ValueError with the reason for a row that is not a question."""
    if not isinstance(row, dict):
        raise ValueError(f'found a {type(row).__name__}, expected an object with keys and values')
    kind = _strings(row, 'type')
    if kind not in vocabulary.TYPES:
        raise ValueError(f'the type {list(kind)} is not one of the nine of MUSIC-AVQA')
    answer = _string(row, 'anser').strip()
    if answer not in vocabulary.ANSWERS:
        raise ValueError(f'the answer {answer!r} is not one of the {len(vocabulary.ANSWERS)}')
    template, values = _string(row, 'question_content'), _strings(row, 'templ_values')
    text = fill(template, values)
    if not text:
        raise ValueError('the question is empty')
    video_id = _plain_name(row.get('video_id'), 'video_id')
    # Version 2: picture from `video_id`, sound from `unmatch_audio`.
    sound_id = row.get('unmatch_audio')
    sound_id = video_id if _is_absent(sound_id) else _plain_name(sound_id, 'unmatch_audio')
    return Question(
        question_id=_question_id(row.get('question_id'), fallback_id),
        video_id=video_id,
        sound_id=sound_id,
        split=split,
        modality=kind[0],
        kind=kind[1],
        template=template,
        values=values,
        text=text,
        answer=answer,
    )


def _is_absent(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _question_id(value, fallback: str) -> str:
    if _is_absent(value):
        return fallback
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # tables written by pandas hold 47859.0
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f'question_id is {value!r}, expected a number')


def _string(row: dict, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ValueError(
            f'{key} is {value!r}, expected text' if key in row else f'{key} is missing'
        )
    return value


def _strings(row: dict, key: str) -> tuple[str, ...]:
    """A list of strings, written as a list or as text holding a JSON list."""
    value = row.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f'{key} is {value!r}, expected a list') from None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(
            f'{key} is {value!r}, expected a list of texts' if key in row else f'{key} is missing'
        )
    return tuple(value)


def _plain_name(value, key: str) -> str:
    """The value if it can only name a file inside its folder.

    Raises:
      ValueError: it is no text, or holds what could lead elsewhere.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f'{key} is {value!r}, expected the name of a video')
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ValueError(f'{key} {value!r} cannot be a file name') from None
    if (
        value in ('.', '..')
        or size > _LONGEST_ID
        or not value.isprintable()
        or set(value) & {'/', '\\'}
    ):
        raise ValueError(f'{key} {value!r} is not the plain name of a file in videos/')
    return value
