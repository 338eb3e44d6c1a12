import dataclasses
import json

import numpy as np
import pytest

from amuse_jax.data import question_table
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import Question, vocabulary
from tests.data.small_questions import Sides


def question(template='Where is the <Object>?', values=('tuba',), answer='left', text=''):
    return Question(
        question_id='1', video_id='v', sound_id='v', split='train', modality='Visual',
        kind='Location', template=template, values=values, text=text or template, answer=answer,
    )  # fmt: skip


def read(folder, questions):
    rows = [dataclasses.asdict(q) | {'record': 3 + i} for i, q in enumerate(questions)]
    (folder / 'questions.json').write_text(json.dumps(rows))
    return question_table.read(folder, Sides())


def test_questions_are_encoded_as_written_and_mirrored(tmp_path):
    first = 'Which is the musical instrument that sounds at the same time as the <Object>?'
    sided = 'Is the instrument on the <LR> more rhythmic than the instrument on the <RL>?'
    questions = (
        question(),
        question(first, answer='flute'),
        question(
            sided, ('left', 'right'), 'yes',
            'Is the instrument on the left more rhythmic than the instrument on the right?',
        ),
    )  # fmt: skip
    table = read(tmp_path, questions)
    assert table.questions == questions
    assert table.records.tolist() == [3, 4, 5]
    answers = [vocabulary.ANSWERS[index] for index in table.plain.answers]
    assert answers == ['left', 'flute', 'yes']
    answers = [vocabulary.ANSWERS[index] for index in table.mirrored.answers]
    assert answers == ['right', 'flute', 'yes']
    np.testing.assert_array_equal(table.plain.words, [[0, 0], [0, 0], [1, 1]])
    np.testing.assert_array_equal(table.plain.word_mask, table.plain.words > 0)


def test_questions_about_order_are_marked(tmp_path):
    templates = [*vocabulary.ABOUT_ORDER, 'Where is the <Object>?']
    table = read(tmp_path, [question(template) for template in templates])
    assert table.is_about_order.tolist() == [True] * len(vocabulary.ABOUT_ORDER) + [False]


def test_an_unknown_answer_is_named(tmp_path):
    with pytest.raises(StageError, match='maybe'):
        read(tmp_path, [question(answer='maybe')])
