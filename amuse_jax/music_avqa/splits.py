"""Reads the questions of each split: every question once, with one answer.

The rows of the annotation files are changed as follows:
- A question that occurs twice with the same answer is kept once.
- A question with two answers keeps one of them, as in the authors' correction of June 2022. Version
  1 as first published has 55 such questions in test, 27 in val and about 160 in train. For four of
  them the correction's choice is known (CORRECTIONS). Of the others in val and test, the correction
  kept the first row 43 times and the second row 37 times, without a visible rule; here the first
  row is kept.
- A row whose `question_deleted` is set is left out.
- Words outside vocabulary.QUESTION_WORDS are kept, and the row is reported.
- If version 2 has no validation file, one train question in eight is held out for validation. The
  share is that of version 1 (4,568 of 36,495) and of the validation files that AIM-SKKU/QA-TIGER
  made from version 2's train files. Like those files and like both versions' test sets, it is drawn
  question by question. So its videos are train videos too, and its accuracy predicts the accuracy
  on the test set. A hash of the question decides, not its position in the file.
- Validation questions that are also in the train file are removed from the train questions.
- 'v1-by-video' pools all rows of version 1 and splits them by a hash of the performance's name, in
  the proportions of the official splits, 7 : 1 : 2. So no performance is in two splits, as far as
  names show: synthetic videos were made from recorded ones, but their names do not say from which.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from amuse_jax.music_avqa import layout, rows, videos, vocabulary
from amuse_jax.music_avqa.rows import REPHRASED, SPLITS, Question

VALIDATION_SHARE = 1 / 8
BY_VIDEO_SHARES = {'train': 0.7, 'val': 0.1, 'test': 0.2}

# Questions with two answers whose correction in version 1 is known, by question_id: the fields that
# the correction changed, or None for a question that it removed.
CORRECTIONS: dict[str, dict | None] = {
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

# A question's location, such as 'avqa-val.json, row 12', and the question.
LocatedQuestion = tuple[str, Question]


@dataclasses.dataclass(frozen=True)
class AnnotationFile:
    """Content of one annotation file.

    Attributes:
      path: the file.
      split: the split of its questions.
      questions: the questions of all readable rows, with repeated ones, in the file's order.
      malformed: one sentence for every row that could not be read.
      deleted: one sentence for every row that its authors have marked as deleted.
    """

    path: Path
    split: str
    questions: tuple[Question, ...]
    malformed: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Number of rows in the file."""
        return len(self.questions) + len(self.malformed) + len(self.deleted)


@dataclasses.dataclass(frozen=True)
class Annotations:
    """All questions of a data set.

    Attributes:
      files: the annotation files that were read.
      questions: questions by split, in the order of SPLITS, with REPHRASED last if there is such a
        split. All questions of a split differ in their identity.
      remarks: one sentence for every row that was changed, repeated or unusual.
    """

    files: tuple[AnnotationFile, ...]
    questions: dict[str, tuple[Question, ...]]
    remarks: tuple[str, ...]


def read(
    root: Path, scheme: str, rephrased: str = '', wanted: Sequence[str] = SPLITS
) -> Annotations:
    """Read a data set's annotation files.

    Args:
      root: folder of the data set.
      scheme: one of layout.SCHEMES.
      rephrased: file or folder of MUSIC-AVQA-R; see layout.find_rephrased.
      wanted: the splits to read. The files of other splits may be missing, except with
        'v1-by-video', which needs all of them.

    Raises:
      StageError: a file is missing, or it is not an annotation file.
    """
    files, located = [], {split: [] for split in (*SPLITS, REPHRASED)}
    needed = SPLITS if scheme == 'v1-by-video' else wanted
    paths = [(path, split) for split, path in layout.find(root, scheme, needed).items()]
    paths += [(path, REPHRASED) for path in layout.find_rephrased(root, rephrased)]
    for path, split in paths:
        found = rows.read_rows(path, split)
        questions = tuple(question for _, question in found.questions)
        files.append(
            AnnotationFile(path, split, questions, tuple(found.malformed), tuple(found.deleted))
        )
        located[split] += [
            (f'{path.name}, row {number}', question) for number, question in found.questions
        ]

    remarks = [sentence for file in files for sentence in file.deleted]
    remarks += [
        f'{where}: {", ".join(unknown)} not among the {len(vocabulary.QUESTION_WORDS)} known words'
        for split in SPLITS
        for where, question in located[split]
        if (unknown := _unknown_words(question))
    ]
    if scheme == 'v1-by-video':
        everything = [pair for split in SPLITS for pair in located.pop(split)]
        located = split_by_video(_deduplicate(everything, remarks)) | located
    corrections = CORRECTIONS if scheme == 'v1-json' else {}
    questions = {
        split: [question for _, question in _deduplicate(pairs, remarks, corrections)]
        for split, pairs in located.items()
    }
    if scheme in layout.WITHOUT_VALIDATION and 'train' in wanted:
        questions |= _train_and_validation(questions['train'], questions['val'], remarks)
    splits = (*wanted, REPHRASED) if rephrased else wanted
    return Annotations(
        tuple(files),
        {split: tuple(found) for split, found in questions.items() if split in splits},
        tuple(remarks),
    )


def describe_shared_videos(questions: Mapping[str, Sequence[Question]]) -> str:
    """Return a sentence on val videos that are train videos too; '' if there are none."""
    train, val = ({question.video_id for question in questions[name]} for name in ('train', 'val'))
    if not train & val:
        return ''
    return (
        f'{len(train & val):,} of {len(val):,} val videos are train videos too, because the '
        'questions were split and not the videos; a score on val questions says little about new '
        'videos'
    )


def describe_test_set(lost: int, questions: int) -> str:
    """Return a sentence on a test set of which some questions cannot be asked."""
    if not lost:
        return f'The test set is whole: {questions:,} questions.'
    return (
        f'The test set is not whole: {lost:,} of {questions:,} questions cannot be asked. Mention '
        'this with every accuracy; it cannot be compared with published ones.'
    )


def advise_on_lost(lost: int, videos: int) -> str:
    """Return a sentence on how to go on without some of the videos."""
    share = min(lost * 100 // videos + 1, 100) / 100
    return (
        'To go on without them, and without their questions, set '
        f'--config.data.max_broken_share={share:g}'
    )


def split_by_video(located: Sequence[LocatedQuestion]) -> dict[str, list[LocatedQuestion]]:
    """Split questions so that all questions about one performance are in the same split."""
    splits: dict[str, list[LocatedQuestion]] = {name: [] for name in SPLITS}
    for where, question in located:
        number = _unit_hash('by video', videos.performance_name(question.video_id))
        name = 'test'
        if number < BY_VIDEO_SHARES['train'] + BY_VIDEO_SHARES['val']:
            name = 'train' if number < BY_VIDEO_SHARES['train'] else 'val'
        splits[name].append((where, dataclasses.replace(question, split=name)))
    return splits


def hold_out_validation(train: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """Divide train questions into those to train on and those held out for validation."""
    kept, held_out = [], []
    for question in train:
        if _unit_hash('validation', *question.identity) < VALIDATION_SHARE:
            held_out.append(dataclasses.replace(question, split='val'))
        else:
            kept.append(question)
    return kept, held_out


def _train_and_validation(
    train: list[Question], validation: list[Question], remarks: list[str]
) -> dict[str, list[Question]]:
    """Return version 2's train and validation questions, with or without a validation file."""
    if not validation:
        kept, held_out = hold_out_validation(train)
        return {'train': kept, 'val': held_out}
    identities = {question.identity for question in validation}
    kept = [question for question in train if question.identity not in identities]
    if len(kept) < len(train):
        remarks.append(f'{len(train) - len(kept)} train questions are validation questions')
    return {'train': kept, 'val': validation}


def _deduplicate(
    located: Sequence[LocatedQuestion],
    remarks: list[str],
    corrections: dict[str, dict | None] | None = None,
) -> list[LocatedQuestion]:
    """Return every question once, with one answer, in the order of first occurrence."""
    unique: dict[tuple, LocatedQuestion | None] = {}
    first: dict[tuple, LocatedQuestion] = {}
    for where, question in located:
        identity = question.identity
        if identity not in first:
            first[identity] = unique[identity] = where, question
            continue
        first_where, earlier = first[identity]
        if question.answer == earlier.answer:
            remarks.append(f'{where}: repeats {first_where}; kept once')
            continue
        both = f'{where}: {question.answer!r}, but {earlier.answer!r} in {first_where}'
        if corrections and question.question_id in corrections:
            change = corrections[question.question_id]
            if change is None:
                unique[identity] = None
                remarks.append(f'{both}; neither is kept, as in json_update')
            else:
                unique[identity] = first_where, dataclasses.replace(earlier, **change)
                remarks.append(f'{both}; {change["answer"]!r}, as in json_update')
        else:
            remarks.append(f'{both}; the first is kept')
    return [kept for kept in unique.values() if kept is not None]


def _unknown_words(question: Question) -> list[str]:
    return [
        repr(word) for word in vocabulary.split_words(question.text) if word not in _KNOWN_WORDS
    ]


def _unit_hash(*key: str) -> float:
    """Hash the key to a number in [0, 1)."""
    digest = hashlib.sha256('\0'.join(key).encode()).digest()
    return int.from_bytes(digest[:8], 'big') / 2**64
