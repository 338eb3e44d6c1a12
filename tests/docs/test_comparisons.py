"""The experiment on comparisons: linear models find what is there, and nothing else."""

import runpy

import numpy as np
import pytest

from tests.paths import ROOT


@pytest.fixture(scope='module')
def script():
    return runpy.run_path(str(ROOT / 'docs/comparisons.py'))


def test_a_sound_is_described_by_its_bands(script):
    statistics = script['describe'](3).reshape(5, 64)
    mean, high, peak, rise, share = statistics
    assert np.isfinite(statistics).all()
    assert (mean <= peak).all() and (high <= peak).all()
    assert (rise >= 0).all() and ((share >= 0) & (share <= 1)).all()


def test_questions_and_labels_come_from_the_same_scores(script):
    questions, labels = script['read_scores'](20)
    for name, template in questions.items():
        assert template
        for video, one, other, is_yes in template:
            first, second = (labels[name][video, each] for each in (one, other))
            assert (first > second) == is_yes


@pytest.mark.parametrize('method', ['answers', 'labels', 'labels, level removed'])
@pytest.mark.parametrize('is_heard', [True, False])
def test_a_model_answers_only_what_the_statistics_tell(script, method, is_heard):
    """Each instrument is loud in a band of its own, or the bands are noise."""
    random = np.random.default_rng(0)
    levels = random.normal(size=(200, 2))
    statistics = np.zeros((200, 5 * 64), np.float32)
    statistics[:, [10, 40]] = levels if is_heard else random.normal(size=(200, 2))
    labels = {(v, name): levels[v, i] for v in range(200) for i, name in enumerate(('a', 'b'))}
    questions = [(v, 'a', 'b', levels[v, 0] > levels[v, 1]) for v in range(200)]
    found = script['accuracy'](method, statistics, questions, labels, np.arange(150))
    assert found > 0.85 if is_heard else 0.25 < found < 0.75
