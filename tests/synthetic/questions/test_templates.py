"""Tests which questions are asked about a performance, and their answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amuse_jax.music_avqa.vocabulary import ANSWERS, COUNTS, INSTRUMENTS, PLACEHOLDERS, TEMPLATES
from amuse_jax.synthetic.questions import facts, templates
from amuse_jax.synthetic.score.compose import compose
from amuse_jax.synthetic.score.score import Note, Performer, Score


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**20), st.integers(0, 5000))
def test_placeholders_are_filled_with_their_own_values(seed, index):
    questions = templates.candidates(compose(seed, index))
    assert len({(q.template, q.values) for q in questions}) == len(questions)
    for question in questions:
        assert question.answer in ANSWERS
        holders = [word.strip('?\uff1f') for word in question.template.split() if '<' in word]
        assert len(holders) == len(question.values)
        for holder, value in zip(holders, question.values):
            assert value in PLACEHOLDERS[holder]
        places = [value for value in question.values if value in ('left', 'middle', 'right')]
        names = [value for value in question.values if value in INSTRUMENTS]
        assert len(set(places)) == len(places)
        assert places or len(set(names)) == len(names)


def test_every_template_is_asked_with_every_kind_of_answer():
    answers = {template: set() for template in TEMPLATES}
    for index in range(200):
        for question in templates.candidates(compose(5, index)):
            answers[question.template].add(question.answer)
    for template, kinds in answers.items():
        if template.startswith(('Is ', 'Are ')):
            assert kinds == {'yes', 'no'}, template
        else:
            assert len(kinds) >= 2, template
    assert answers['Which <Object> makes the sound <FL>?'] == {
        'left', 'middle', 'right', 'simultaneously'
    }  # fmt: skip
    asked = set().union(*answers.values())
    assert set(ANSWERS) - asked <= set(COUNTS[7:])


def performer(instrument, x, place, intervals, gain_db=-20.0, heard=None, visible=True, rate=1.0):
    notes = tuple(
        Note(float(second), 0.5, 60, 90)
        for begin, end in intervals
        for second in np.arange(begin, end, 1 / rate)
    )
    heard = heard or instrument
    return Performer(
        instrument, heard, visible, x, place, gain_db, intervals, notes, appearance_seed=0
    )


def score_of(*performers, voiceover=None):
    return Score('syn00000000', 1, 60.0, 'indoor', voiceover, ((0.0, 90.0),), performers)


def answers_of(score):
    return {(q.template, q.values): q.answer for q in templates.candidates(score)}


@pytest.fixture
def trio():
    """A violin that always plays, a silent cello, and a louder and faster flute from 12 to 40 s."""
    return score_of(
        performer('violin', 0.2, 'left', ((0.0, 60.0),), -24.0),
        performer('cello', 0.5, 'middle', ()),
        performer('flute', 0.8, 'right', ((12.0, 40.0),), -16.0, rate=3.0),
    )


@pytest.mark.parametrize(
    'template, values, answer',
    [
        ('How many musical instruments were heard throughout the video?', (), 'two'),
        ('How many types of musical instruments appeared in the entire video?', (), 'three'),
        ('How many instruments in the video did not sound from beginning to end?', (), 'one'),
        ('How many sounding <Object> in the video\uff1f', ('cello',), 'zero'),
        ('How many <Object> are in the entire video?', ('cello',), 'one'),
        ('Is there a <Object> sound?', ('cello',), 'no'),
        ('Is the <Object> in the video always playing?', ('violin',), 'yes'),
        ('Is the <Object> in the video always playing?', ('flute',), 'no'),
        ('Is the <Object> playing longer than the <Object>?', ('flute', 'violin'), 'no'),
        ('Is the <Object> louder than the <Object>?', ('flute', 'violin'), 'yes'),
        ('Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?',
         ('right', 'left'), 'yes'),
        ('Where is the <LL> instrument?', ('loudest',), 'right'),
        ('What is the <TH> instrument that comes in?', ('second',), 'flute'),
        ('Which instrument makes sounds <BA> the <Object>?', ('before', 'flute'), 'violin'),
        ('What is the <LR> instrument of the <FL> sounding instrument?',
         ('left', 'last'), None),  # violin or cello?
        ('Where is the <LL> instrument?', ('lowest',), None),  # or the silent cello?
        ('Is there a voiceover?', (), 'no'),
        ('What kind of musical instrument is it?', (), None),
    ],
)  # fmt: skip
def test_a_trio(trio, template, values, answer):
    assert answers_of(trio).get((template, values)) == answer


def test_close_calls_are_not_asked():
    close = score_of(
        performer('violin', 0.3, 'left', ((0.0, 60.0),), -20.0, rate=2.0),
        performer('flute', 0.7, 'right', ((3.0, 60.0),), -22.0, rate=2.5),
    )
    asked = {template for template, _ in answers_of(close)}
    assert not any(' than ' in template for template in asked)
    assert not any('<FL>' in template or '<TH>' in template for template in asked)
    assert answers_of(close)['Is the <Object> in the video always playing?', ('violin',)] == 'yes'
    assert ('Is the <Object> in the video always playing?', ('flute',)) not in answers_of(close)


def test_a_mismatched_sound_is_detected_and_no_ambiguous_question_is_asked():
    mismatch = score_of(performer('violin', 0.5, 'middle', ((0.0, 60.0),), heard='tuba'))
    answers = answers_of(mismatch)
    assert answers['Is this sound from the instrument in the video?', ()] == 'no'
    assert answers['Is there a <Object> sound?', ('tuba',)] == 'yes'
    assert answers['Is there a <Object> in the entire video?', ('tuba',)] == 'no'
    assert ('What kind of musical instrument is it?', ()) not in answers
    assert ('How many instruments are sounding in the video?', ()) not in answers


def test_simultaneous_entries_and_staggered_entries_of_equal_instruments():
    together = score_of(
        performer('violin', 0.3, 'left', ((0.0, 60.0),)),
        performer('violin', 0.7, 'right', ((0.0, 50.0),)),
    )
    key = ('Which <Object> makes the sound <FL>?', ('violin', 'first'))
    assert answers_of(together)[key] == 'simultaneously'
    apart = score_of(
        performer('violin', 0.3, 'left', ((9.0, 60.0),)),
        performer('violin', 0.7, 'right', ((0.0, 50.0),)),
    )
    assert answers_of(apart)[key] == 'right'
    assert facts.first_and_last(apart)['last'].place == 'left'
