import json

import pytest

from amuse_jax.ask.familiar import Familiar, form_of
from amuse_jax.music_avqa import Question


def question(text, split='train'):
    return Question(
        question_id='1', video_id='a', sound_id='a', split=split, modality='Audio',
        kind='Counting', template=text, values=(), text=text, answer='one', frequency='',
    )  # fmt: skip


FAMILIAR = Familiar.from_questions(
    [
        question('How many sounding acoustic_guitar in the video\uff1f'),
        question('Is the flute on the left louder than the cello on the right?'),
        question('Where is the bananaphone?', split='test'),
    ]
)


@pytest.mark.parametrize(
    'text',
    [
        'How many sounding acoustic guitar in the video?',
        'how many sounding flute in the video',
        'Is the cello on the right louder than the flute on the left?',
    ],
)
def test_questions_of_known_forms(text):
    assert FAMILIAR.describe_new(text) == []


@pytest.mark.parametrize(
    ('text', 'note'),
    [
        ('Where is the bananaphone?', "the word 'where', 'bananaphone'"),
        ('How many sounding tuba in the video?', "the word 'tuba'"),
        ('How many flute is louder?', 'has this form'),
    ],
)
def test_new_words_and_forms_are_told(text, note):
    (found,) = FAMILIAR.describe_new(text)
    assert note in found


def test_a_form_has_blanks_for_values():
    assert (
        form_of('Where is the first sounding instrument?') == 'where is the <> sounding instrument'
    )
    assert form_of('Is the acoustic_guitar louder?') == form_of('is the bagpipe  LOUDER')


def test_json_and_back():
    assert Familiar.from_json(json.loads(json.dumps(FAMILIAR.to_json()))) == FAMILIAR
