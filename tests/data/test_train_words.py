import dataclasses

import numpy as np
import pytest

from amuse_jax.data.train_words import LENGTH, TrainWords
from amuse_jax.music_avqa import Question, rows, vocabulary

PLAIN = Question('1', 'v', 'v', 'train', 'Visual', 'Location', '', (), '', 'yes')


def train(*texts):
    return TrainWords([dataclasses.replace(PLAIN, text=text) for text in texts])


def test_words_have_numbers_in_the_order_of_their_first_appearance():
    words = train('Is the flute louder than the cello?', 'Where is the flute?')
    assert len(words) == 1 + 8  # Is the flute louder than cello, Where is
    numbers, mask = words.encode(['Where is the cello?', 'Is the flute louder than the cello?'])
    assert numbers.shape == mask.shape == (2, LENGTH) and numbers.dtype == np.int32
    assert numbers[0].tolist() == [7, 8, 2, 6] + 10 * [0]  # 'is' is not 'Is'
    assert numbers[1].tolist() == [1, 2, 3, 4, 5, 2, 6] + 7 * [0]
    assert mask.sum(1).tolist() == [4, 7]


def test_words_that_no_train_question_has_are_padding_and_are_reported():
    words = train('Is the flute louder than the cello?')
    assert words.encode(['Is the drum louder?'])[0][0, :5].tolist() == [1, 2, 0, 4, 0]
    assert words.losses('Is the drum louder?') == ["no train question has 'drum'"]
    assert words.losses('Is the flute louder?') == []
    long = 'Is the flute louder than the cello ' * 3
    assert words.encode([long])[1].sum() == LENGTH
    assert words.losses(long) == [
        f'{" ".join(long.split()[LENGTH:])!r} is behind word 14 and is cut off'
    ]


def test_the_templates_of_music_avqa_have_the_93_words_of_the_released_vocabulary():
    """Each template once with each value of each of its placeholders."""
    texts = []
    for template in vocabulary.TEMPLATES:
        names = vocabulary.PLACEHOLDER.findall(template)
        count = max([len(vocabulary.PLACEHOLDERS[name]) for name in names], default=1)
        for index in range(count):
            values = [
                vocabulary.PLACEHOLDERS[name][index % len(vocabulary.PLACEHOLDERS[name])]
                for name in names
            ]
            texts.append(rows.fill(template, values))
    words = train(*texts)
    assert len(words) == 93
    assert max(len(vocabulary.split_words(text)) for text in texts) == LENGTH
    assert not any(words.losses(text) for text in texts)


@pytest.mark.parametrize('text', ['', '?'])
def test_a_question_without_words_is_all_padding(text):
    numbers, mask = train('Is it?').encode([text])
    assert not numbers.any() and not mask.any()
