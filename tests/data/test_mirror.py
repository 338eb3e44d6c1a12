"""Mirrored questions against the answers of mirrored scores."""

import dataclasses

import numpy as np
import pytest

from amuse_jax.data import mirror
from amuse_jax.data.music_avqa import Question, fill
from amuse_jax.synthetic import ask, compose


def mirrored_score(score):
    """The same performance with everybody on the other side."""
    visible = [performer for performer in score.performers if performer.visible]
    hidden = [performer for performer in score.performers if not performer.visible]
    turned = [
        dataclasses.replace(
            performer,
            x=1 - performer.x,
            place={'left': 'right', 'right': 'left'}.get(performer.place, performer.place),
        )
        for performer in reversed(visible)
    ]
    return dataclasses.replace(score, performers=(*turned, *hidden))


def questions_about(score):
    return [
        Question(
            question_id='', video_id=score.video_id, sound_id=score.video_id, split='train',
            modality='', kind='', template=candidate.template, values=tuple(candidate.values),
            text=fill(candidate.template, candidate.values), answer=candidate.answer,
        )
        for candidate in ask.candidates(score)
    ]  # fmt: skip


@pytest.mark.parametrize('index', range(30))
def test_mirrored_questions_have_the_mirrored_performances_answers(index):
    score = compose.compose(7, index)
    answers = {q.text: q.answer for q in questions_about(mirrored_score(score))}
    for question in questions_about(score):
        turned = mirror.mirrored(question)
        assert mirror.mirrored(turned) == question
        # What is absent may be drawn in another order; what has sides is always there.
        if turned != question or turned.text in answers:
            assert answers[turned.text] == turned.answer, question


def test_boxes_and_frames_turn_together():
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (2, 8, 10, 3), np.uint8)
    box = np.array([0.1, 0.25, 0.4, 0.75])
    x0, y0, x1, y1 = mirror.mirrored_boxes(box)

    def cut(picture, box):
        x0, y0, x1, y1 = np.round(box * [10, 8, 10, 8]).astype(int)
        return picture[:, y0:y1, x0:x1]

    turned = cut(mirror.mirrored_frames(frames), np.array([x0, y0, x1, y1]))
    np.testing.assert_array_equal(turned[:, :, ::-1], cut(frames, box))
