import itertools
import re

from amuse_jax import music_avqa
from amuse_jax.music_avqa import vocabulary


def split_as_published_code(template, values):
    """Split at spaces, drop the last letter of the last word, then fill word by word."""
    words = template.rstrip().split(' ')
    words[-1] = words[-1][:-1]
    remaining = iter(values)
    return [next(remaining) if '<' in word else word for word in words]


def test_words_equal_those_of_the_published_code():
    for template in vocabulary.TEMPLATES:
        places = re.findall('<[^<>]+>', template)
        for values in itertools.product(*[vocabulary.PLACEHOLDERS[p][:3] for p in places]):
            text = music_avqa.fill(template, values)
            assert vocabulary.split_words(text) == split_as_published_code(template, values)


def test_92_words_and_padding_in_a_fixed_order():
    words = vocabulary.QUESTION_WORDS
    assert len(words) == 93 and words[0] == '<pad>'
    assert list(words[1:]) == sorted(set(words[1:]))
    assert len({word.lower() for word in words[1:]}) == 90  # Is and is, Are and are
    expected = {
        word
        for template in vocabulary.TEMPLATES
        for word in split_as_published_code(template, itertools.repeat('violin'))
    }
    expected |= {value for values in vocabulary.PLACEHOLDERS.values() for value in values}
    assert set(words[1:]) == expected
    assert words[1:4] == ('Are', 'How', 'Is') and words[-1] == 'xylophone'


def test_answers_and_templates():
    assert len(set(vocabulary.ANSWERS)) == len(vocabulary.ANSWERS) == 42
    assert len(vocabulary.TEMPLATES) == 33
    assert len(vocabulary.INSTRUMENTS) == 22 and len(vocabulary.COUNTS) == 12
    longest = max(
        len(vocabulary.split_words(template)) for template in vocabulary.TEMPLATES
    )  # a placeholder is one word
    assert longest == 14
