import random

import pytest

from amuse_jax import music_avqa
from amuse_jax.evaluation import test_sets
from amuse_jax.music_avqa import Question, vocabulary
from tests.music_avqa import published


def make(counts, videos, first_version, name='{:08d}'):
    """Make `counts` questions of each type about `videos` videos.

    For version 2, one video in ten has an id that version 1 does not have.
    """
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
def test_a_test_set_is_recognised_by_its_questions(known):
    questions = make(known.counts, known.videos, known.first_version)
    assert len(questions) == known.questions
    for scheme in (known.scheme, 'plain'):
        assert test_sets.recognise(questions, scheme) == known
        added = test_sets.recognise(questions + questions[:1], scheme)
        assert added != known  # one too many of a type
        some = test_sets.recognise(questions[: int(0.97 * len(questions))], scheme)
        assert some is not None and some.first_version == known.first_version
        assert test_sets.recognise(questions[: int(0.9 * len(questions))], scheme) is None


def test_two_files_with_the_same_counts_are_two_test_sets():
    """Version 1 as first published, without repeated questions, has the corrected set's counts."""
    update, first = test_sets.KNOWN[:2]
    questions = make(update.counts, update.videos, True)
    assert test_sets.recognise(questions, 'v1') == update
    assert test_sets.recognise(questions, 'v1-json') == first != update
    for scheme in ('v1-by-video', 'v2-balance', 'v2-bias'):
        assert test_sets.recognise(questions, scheme) is None


@pytest.mark.parametrize('known', test_sets.KNOWN, ids=lambda known: known.name)
def test_the_same_questions_about_other_videos_are_another_test_set(known):
    rendered = make(known.counts, known.videos, known.first_version, 'syn{:08d}')
    assert test_sets.recognise(rendered, 'plain') is None
    # A split by video has as many questions about fewer videos.
    fewer = make(known.counts, known.videos // 3, known.first_version)
    assert test_sets.recognise(fewer, known.scheme) is None
    assert test_sets.recognise(make([9] * 9, 30, known.first_version), 'plain') is None


def test_a_real_file():
    questions, _ = music_avqa.read_questions(published.path('v2_test_bias'), 'test')
    assert test_sets.recognise(questions, 'v2-bias').name == 'MUSIC-AVQA v2, biased'
    assert test_sets.recognise(questions[:-200], 'plain').published == 'v2-bias'
