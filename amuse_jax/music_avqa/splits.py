"""A data set's questions, split by split: each question once, with one answer.

What is done to the rows of the files:
- A question that is written twice with the same answer is kept once.
- A question with two answers (version 1 as first published: 55 in test, 27 in val, some 160 in
  train) keeps one, as the authors' correction of June 2022 does. For four of them the correction's
  choice is known (CORRECTED). Of the others in val and test it kept the first row of 43 and the
  second of 37; no rule tells which, so the first row is kept.
- Words outside vocabulary.QUESTION_WORDS stay; the row is named.
- Where version 2 comes without a file for validation, one train question in eight is held out, as
  in version 1 (4,568 of 36,495) and in the validation files that AIM-SKKU/QA-TIGER cut from version
  2's train files. Like theirs, and like both versions' test sets, it is drawn question by question:
  its videos are train videos too, so its accuracy foretells the test set's. A hash of the question
  decides, not its place in the file.
- Given validation rows are taken out of the train rows, if they are in both.
- 'v1-by-video': all rows of version 1, split by a hash of the performance's name in the official
  splits' proportions of 7 : 1 : 2. Synthetic videos were made from recorded ones, and no name tells
  which; apart from that no performance is on two sides.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from amuse_jax.music_avqa import layout, rows, videos, vocabulary
from amuse_jax.music_avqa.rows import REPHRASED, SPLITS, Question

VALIDATION_SHARE = 1 / 8
BY_VIDEO_SHARES = {'train': 0.7, 'val': 0.1, 'test': 0.2}

# What became of questions with two answers in version 1's correction, by question_id, where its
# choice is known: fields that changed, or None where the question was dropped.
CORRECTED: dict[str, dict | None] = {
    '47300': None,
    '27558': {
        'template': 'What kind of instrument is the <LRer> instrument? ',
        'values': ('leftest',),
        'text': 'What kind of instrument is the leftest instrument?',
        'answer': 'acoustic_guitar',
    },
    '33910': {'answer': 'five'},
    '37407': {'answer': 'two'},
}

_KNOWN_WORDS = frozenset(vocabulary.QUESTION_WORDS)

# A question and where it is written: 'avqa-val.json, row 12'.
Located = tuple[str, Question]


@dataclasses.dataclass(frozen=True)
class File:
    """What one annotation file holds.

    Attributes:
      path: the file.
      split: whose questions it holds.
      questions: of all rows that could be read, repeated ones included, in the file's order.
      malformed: one sentence for every row that could not.
    """

    path: Path
    split: str
    questions: tuple[Question, ...]
    malformed: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Annotations:
    """All questions of a data set.

    Attributes:
      files: what was read.
      questions: by split, in SPLITS' order and then REPHRASED if there are any; no two questions
        of a split have the same identity.
      remarks: one sentence on every row that was not taken as it is written.
    """

    files: tuple[File, ...]
    questions: dict[str, tuple[Question, ...]]
    remarks: tuple[str, ...]


def read(
    root: Path, scheme: str, rephrased: str = '', wanted: Sequence[str] = SPLITS
) -> Annotations:
    """Reads a data set's annotation files.

    Args:
      root: the data set's folder.
      scheme: one of layout.SCHEMES.
      rephrased: MUSIC-AVQA-R's file or folder, see layout.find_rephrased.
      wanted: of SPLITS; the others' files need not be there, but for 'v1-by-video', which is made
        of all.

    Raises:
      StageError: a file is missing or is no annotation file.
    """
    files, located = [], {split: [] for split in (*SPLITS, REPHRASED)}
    needed = SPLITS if scheme == 'v1-by-video' else wanted
    paths = [(path, split) for split, path in layout.find(root, scheme, needed).items()]
    paths += [(path, REPHRASED) for path in layout.find_rephrased(root, rephrased)]
    for path, split in paths:
        found, malformed = rows.read_rows(path, split)
        files.append(File(path, split, tuple(q for _, q in found), tuple(malformed)))
        located[split] += [(f'{path.name}, row {number}', question) for number, question in found]

    remarks = [
        f'{where}: {", ".join(unknown)} not among the {len(vocabulary.QUESTION_WORDS)} known words'
        for split in SPLITS
        for where, question in located[split]
        if (unknown := _unknown_words(question))
    ]
    if scheme == 'v1-by-video':
        everything = [pair for split in SPLITS for pair in located.pop(split)]
        located = by_video(_settle(everything, remarks)) | located
    corrected = CORRECTED if scheme == 'v1-json' else {}
    questions = {
        split: [question for _, question in _settle(pairs, remarks, corrected)]
        for split, pairs in located.items()
    }
    if scheme in layout.WITHOUT_VALIDATION and 'train' in wanted:
        questions |= _train_and_validation(questions['train'], questions['val'], remarks)
    asked = (*wanted, REPHRASED) if rephrased else wanted
    return Annotations(
        tuple(files),
        {split: tuple(found) for split, found in questions.items() if split in asked},
        tuple(remarks),
    )


def by_video(located: Sequence[Located]) -> dict[str, list[Located]]:
    """Splits questions so that all of one performance are on one side."""
    split: dict[str, list[Located]] = {name: [] for name in SPLITS}
    for where, question in located:
        draw, name = _draw('by video', videos.performance(question.video_id)), 'test'
        if draw < BY_VIDEO_SHARES['train'] + BY_VIDEO_SHARES['val']:
            name = 'train' if draw < BY_VIDEO_SHARES['train'] else 'val'
        split[name].append((where, dataclasses.replace(question, split=name)))
    return split


def cut_validation(train: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """The train questions that stay, and those that are held out for validation."""
    kept, held_out = [], []
    for question in train:
        if _draw('validation', *question.identity) < VALIDATION_SHARE:
            held_out.append(dataclasses.replace(question, split='val'))
        else:
            kept.append(question)
    return kept, held_out


def _train_and_validation(
    train: list[Question], given: list[Question], remarks: list[str]
) -> dict[str, list[Question]]:
    if not given:
        kept, held_out = cut_validation(train)
        return {'train': kept, 'val': held_out}
    validation = {question.identity for question in given}
    kept = [question for question in train if question.identity not in validation]
    if len(kept) < len(train):
        remarks.append(f'{len(train) - len(kept)} train questions are validation questions')
    return {'train': kept, 'val': given}


def _settle(
    located: Sequence[Located], remarks: list[str], corrected: dict[str, dict | None] | None = None
) -> list[Located]:
    """Every question once, with one answer, in the order of first occurrence."""
    settled: dict[tuple, Located | None] = {}
    first: dict[tuple, Located] = {}
    for where, question in located:
        name = question.identity
        if name not in first:
            first[name] = settled[name] = where, question
            continue
        there, earlier = first[name]
        if question.answer == earlier.answer:
            remarks.append(f'{where}: repeats {there}; kept once')
            continue
        both = f'{where}: {question.answer!r}, but {earlier.answer!r} in {there}'
        if corrected and question.question_id in corrected:
            change = corrected[question.question_id]
            if change is None:
                settled[name] = None
                remarks.append(f'{both}; neither is kept, as in json_update')
            else:
                settled[name] = there, dataclasses.replace(earlier, **change)
                remarks.append(f'{both}; {change["answer"]!r}, as in json_update')
        else:
            remarks.append(f'{both}; the first is kept')
    return [kept for kept in settled.values() if kept is not None]


def _unknown_words(question: Question) -> list[str]:
    return [repr(word) for word in vocabulary.words_of(question.text) if word not in _KNOWN_WORDS]


def _draw(*key: str) -> float:
    """A number in [0, 1) that depends on nothing but the key."""
    digest = hashlib.sha256('\0'.join(key).encode()).digest()
    return int.from_bytes(digest[:8], 'big') / 2**64
