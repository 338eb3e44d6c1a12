import random
from pathlib import Path

import pytest

from amuse_jax.data import music_avqa, vocabulary
from amuse_jax.data.music_avqa import Question
from amuse_jax.evaluation import test_sets

REAL = Path(__file__).parents[3] / 'shared/data/music_avqa'


def make(counts, videos, first_version, name='{:08d}'):
    """Questions of each type about so many videos in turn; of version 2, a tenth is its own."""
    kinds = [kind for kind, count in zip(vocabulary.TYPES, counts) for _ in range(count)]
    random.Random(0).shuffle(kinds)
    names = [name.format(index) for index in range(videos)]
    if not first_version:
        names[::10] = [f'AbC-{index:05d}_x' for index in range(len(names[::10]))]
    return [
        Question('1', names[i % videos], names[i % videos], 'test', *kind, 'A', (), 'A', 'yes')
        for i, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize('known', test_sets.KNOWN, ids=lambda known: known.name)
def test_a_test_set_is_known_by_its_questions(known):
    questions = make(known.counts, known.videos, known.first_version)
    assert len(questions) == known.questions
    assert test_sets.recognise(questions) == known
    assert test_sets.recognise(questions + questions[:1]) != known  # one too many of a type
    some = test_sets.recognise(questions[: int(0.97 * len(questions))])
    assert some is not None and some.first_version == known.first_version
    assert test_sets.recognise(questions[: int(0.9 * len(questions))]) is None


@pytest.mark.parametrize('known', test_sets.KNOWN, ids=lambda known: known.name)
def test_other_videos_are_another_test_set(known):
    rendered = make(known.counts, known.videos, known.first_version, 'syn{:08d}')
    assert test_sets.recognise(rendered) is None
    # Split by video, the same questions are about fewer of them.
    fewer = make(known.counts, known.videos // 3, known.first_version)
    assert test_sets.recognise(fewer) is None
    assert test_sets.recognise(make([9] * 9, 30, known.first_version)) is None


def test_a_real_file():
    path = REAL / 'v2_test_bias.json'
    if not path.exists():
        pytest.skip(f'{path} is not here')
    questions, _ = music_avqa.read_questions(path, 'test')
    assert test_sets.recognise(questions).name == 'MUSIC-AVQA v2, biased'
    assert test_sets.recognise(questions[:-200]).published == ''
