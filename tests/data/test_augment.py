"""Augmented questions, sounds and segments are compared with performances that change alike."""

import collections
import dataclasses

import numpy as np
import pytest

from amuse_jax.config import default_config
from amuse_jax.data import augment
from amuse_jax.media.log_mel import FLOOR_DB, LogMel
from amuse_jax.music_avqa import Question, fill, vocabulary
from amuse_jax.synthetic.questions import templates
from amuse_jax.synthetic.score import compose
from amuse_jax.synthetic.sound import sound

ABOUT_ORDER = {
    'Is the <FL> sound coming from the <LR> instrument?',
    'What is the <LR> instrument of the <FL> sounding instrument?',
    'What is the <TH> instrument that comes in?',
    'Where is the <FL> sounding instrument?',
    'Which <Object> makes the sound <FL>?',
    'Which instrument makes sounds <BA> the <Object>?',
}
SCORES = [compose.compose(7, index) for index in range(60)]


def mirrored_score(score):
    """Return the same performance with every performer on the other side."""
    visible = [performer for performer in score.performers if performer.visible]
    hidden = [performer for performer in score.performers if not performer.visible]
    mirrored = [
        dataclasses.replace(
            performer,
            x=1 - performer.x,
            place={'left': 'right', 'right': 'left'}.get(performer.place, performer.place),
        )
        for performer in reversed(visible)
    ]
    return dataclasses.replace(score, performers=(*mirrored, *hidden))


def amplified_score(score, gain_db):
    """Return the same performance with every performer `gain_db` louder."""
    performers = [dataclasses.replace(p, gain_db=p.gain_db + gain_db) for p in score.performers]
    return dataclasses.replace(score, performers=tuple(performers))


def shifted_score(score, seconds):
    """Return the same performance with its last `seconds` moved to the beginning."""
    length = score.seconds

    def shifted_span(span):
        start, end = (second + seconds for second in span)
        if end <= length:
            return [(start, end)]
        if start >= length:
            return [(start - length, end - length)]
        return [(0.0, end - length), (start, length)]

    def shifted_performer(each):
        pieces = sorted(piece for span in each.intervals for piece in shifted_span(span))
        intervals = []
        for start, end in pieces:
            if intervals and start == intervals[-1][1]:  # join where the end meets the beginning
                intervals[-1] = (intervals[-1][0], end)
            else:
                intervals.append((start, end))
        notes = [dataclasses.replace(n, start=(n.start + seconds) % length) for n in each.notes]
        notes.sort(key=lambda note: note.start)
        return dataclasses.replace(each, intervals=tuple(intervals), notes=tuple(notes))

    voiceover = score.voiceover
    if voiceover:
        voiceover = max(shifted_span(voiceover), key=lambda span: span[1] - span[0])
    performers = tuple(shifted_performer(each) for each in score.performers)
    return dataclasses.replace(score, voiceover=voiceover, performers=performers)


def questions_about(score):
    return [
        Question(
            question_id='', video_id=score.video_id, sound_id=score.video_id, split='train',
            modality='', kind='', template=candidate.template, values=tuple(candidate.values),
            text=fill(candidate.template, candidate.values), answer=candidate.answer,
        )
        for candidate in templates.candidates(score)
    ]  # fmt: skip


@pytest.mark.parametrize('index', range(30))
def test_mirrored_questions_have_the_answers_of_the_mirrored_performance(index):
    score = SCORES[index]
    answers = {q.text: q.answer for q in questions_about(mirrored_score(score))}
    for question in questions_about(score):
        mirrored = augment.mirror_question(question)
        assert augment.mirror_question(mirrored) == question
        # Absent instruments may be drawn in another order, so a question about one may be missing.
        # A question with a side is always there.
        if mirrored != question or mirrored.text in answers:
            assert answers[mirrored.text] == mirrored.answer, question


def test_boxes_and_frames_are_mirrored_alike():
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (2, 8, 10, 3), np.uint8)
    box = np.array([0.1, 0.25, 0.4, 0.75])
    x0, y0, x1, y1 = augment.mirror_boxes(box)

    def cut(picture, box):
        x0, y0, x1, y1 = np.round(box * [10, 8, 10, 8]).astype(int)
        return picture[:, y0:y1, x0:x1]

    mirrored = cut(augment.mirror_frames(frames), np.array([x0, y0, x1, y1]))
    np.testing.assert_array_equal(mirrored[:, :, ::-1], cut(frames, box))


@pytest.mark.parametrize('gain_db', [-20.0, -3.3, 6.0])
def test_a_gain_for_all_performers_changes_no_answer(gain_db):
    asked = set()
    for score in SCORES:
        before = questions_about(score)
        assert questions_about(amplified_score(score, gain_db)) == before
        asked |= {question.template for question in before}
    assert asked == set(vocabulary.TEMPLATES)


def test_an_amplified_log_mel_equals_the_log_mel_of_the_amplified_performance():
    """They are equal above the floor, up to the rounding of half floats."""
    front_end = LogMel.from_settings(default_config())
    score = next(score for score in SCORES if score.voiceover is None and len(score.performers) > 1)
    softer = amplified_score(score, -12.0)  # so soft that the player never scales a peak down

    def log_mel(score):
        return np.asarray(front_end(sound.play(score).sum(0))).astype(np.float16)

    soft, softest = log_mel(softer), log_mel(amplified_score(softer, -6.5))
    for gain_db, before, after in ((-6.5, soft, softest), (6.5, softest, soft)):
        found = augment.apply_gain(before, gain_db)
        assert found.dtype == np.float16 and found.min() >= FLOOR_DB
        known = (before > FLOOR_DB) | (gain_db < 0)
        assert known.mean() > 0.5
        # Half floats are 1/16 dB apart here. Near the floor, rounding to -100 adds half of that.
        np.testing.assert_allclose(found[known], after[known], atol=0.15)
        assert (found[~known] == FLOOR_DB).all()


def test_silence_stays_silence():
    faint = np.array([-100.0, -99.0, -60.0, 20.0], np.float16)
    np.testing.assert_array_equal(augment.apply_gain(faint, 12.0), [-100.0, -87.0, -48.0, 32.0])
    np.testing.assert_array_equal(augment.apply_gain(faint, -12.0), [-100.0, -100.0, -72.0, 8.0])


def test_which_templates_are_about_order():
    assert vocabulary.ABOUT_ORDER == ABOUT_ORDER


def test_only_questions_about_order_get_another_answer_when_time_is_shifted():
    changed, kept, lost = (collections.Counter() for _ in range(3))
    for score in SCORES:
        before = questions_about(score)
        for by in range(1, 10):
            after = shifted_score(score, by * compose.SEGMENT_SECONDS)
            answers = {q.text: q.answer for q in questions_about(after)}
            for question in before:
                answer = answers.get(question.text)
                found = lost if answer is None else kept if answer == question.answer else changed
                found[question.template] += 1
    assert set(changed) <= ABOUT_ORDER <= set(changed + lost)
    assert len(changed) >= 4
    # A shift joins the silences at both ends, and may cut a pause in the middle in two. Then the
    # answer stays true, but the margin changes, and the question may no longer be asked.
    always = 'Is the <Object> in the video always playing?'
    assert set(lost) - ABOUT_ORDER <= {always} and lost[always] < 0.2 * kept[always]
    assert set(kept) >= set(vocabulary.TEMPLATES) - ABOUT_ORDER


@pytest.mark.parametrize('count', [0, 1, 3, 4])
def test_segments_rotate_and_padding_stays(count):
    segments = np.arange(10).reshape(5, 2)
    exists = np.arange(5) < count
    for offset in range(max(count, 1)):
        found = augment.shift_segments(segments, exists, offset)
        expected = [(place - offset) % count if exists[place] else place for place in range(5)]
        np.testing.assert_array_equal(found[:, 0], 2 * np.array(expected))
    gap = np.array([True, False, True, True, False])
    np.testing.assert_array_equal(augment.shift_segments(segments, gap, 1)[:, 1], [7, 3, 1, 5, 9])
    assert segments[0, 0] == 0  # the result is a copy
