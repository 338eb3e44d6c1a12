"""All questions of a data set as arrays: token ids and answers, also for the mirrored videos."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from amuse_jax.data import augment
from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import StageError, first_few
from amuse_jax.music_avqa import Question, vocabulary


class Encoded(NamedTuple):
    """Questions and answers as numbers.

    Attributes:
      words: (n, N) int32, token ids.
      word_mask: (n, N) bool, True on tokens and False on padding.
      answers: (n,) int32, index into vocabulary.ANSWERS.
    """

    words: np.ndarray
    word_mask: np.ndarray
    answers: np.ndarray


@dataclasses.dataclass(frozen=True)
class QuestionTable:
    """All questions of a data set, encoded once.

    Attributes:
      questions: the n questions, in the order of questions.json.
      plain: the questions as they are written.
      mirrored: the questions to ask about the mirrored videos.
      is_about_order: (n,) bool, True where a shift of the video in time may change the answer.
      records: (n,) int32, index of the question's video in videos.json.
    """

    questions: tuple[Question, ...]
    plain: Encoded
    mirrored: Encoded
    is_about_order: np.ndarray
    records: np.ndarray


def read(prepared: Path, tokenizer: Any) -> QuestionTable:
    """Read the questions that the prepare stage wrote, and encode them.

    Args:
      prepared: the prepare stage's folder.
      tokenizer: a QuestionTokenizer.

    Raises:
      StageError: an answer is not one of the 42.
    """
    stage = Prepared(prepared)
    questions = tuple(stage.questions())
    unknown = sorted({q.answer for q in questions} - set(vocabulary.ANSWERS))
    if unknown:
        raise StageError(
            f'{stage.questions_file} has answers that are not among the 42: '
            f'{", ".join(unknown[:5])}; run the stage prepare again'
        )
    _report_losses(questions, tokenizer)
    index = {answer: i for i, answer in enumerate(vocabulary.ANSWERS)}

    def encode(questions: Sequence[Question]) -> Encoded:
        answers = [index[question.answer] for question in questions]
        texts = [question.text for question in questions]
        return Encoded(*tokenizer.encode(texts), np.array(answers, np.int32))

    return QuestionTable(
        questions=questions,
        plain=encode(questions),
        mirrored=encode([augment.mirror_question(question) for question in questions]),
        is_about_order=np.array([q.template in vocabulary.ABOUT_ORDER for q in questions], bool),
        records=np.array([row['record'] for row in stage.rows], np.int32),
    )


def _report_losses(questions: Sequence[Question], tokenizer: Any) -> None:
    """Log the questions of which the model does not see every word."""
    counts = collections.Counter(question.text for question in questions)
    losses = {text: lost for text in counts if (lost := tokenizer.losses(text))}
    if losses:
        examples = [f'{text!r} ({" and ".join(lost)})' for text, lost in losses.items()]
        logging.warning(
            'the model does not see all words of %d of %d questions: %s',
            sum(counts[text] for text in losses), len(questions), first_few(examples, '; '),
        )  # fmt: skip
