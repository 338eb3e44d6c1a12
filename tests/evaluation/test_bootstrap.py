import math

import numpy as np
import pytest
import scipy.stats

from amuse_jax import music_avqa
from amuse_jax.evaluation import bootstrap, tables
from amuse_jax.music_avqa import Question, videos, vocabulary
from tests.music_avqa import published


def question(video, kind=('Audio', 'Counting')):
    return Question('1', video, video, 'test', *kind, 'A', (), 'A', 'yes')


def some_questions(rng, videos):
    """One to six questions of any type about each video, shuffled."""
    kinds = vocabulary.TYPES
    found = [
        question(f'v{video}', kinds[rng.integers(len(kinds))])
        for video in range(videos)
        for _ in range(rng.integers(1, 7))
    ]
    return [found[index] for index in rng.permutation(len(found))]


def plain_intervals(questions, hits, seed):
    """The definition, one resample at a time."""
    videos = sorted({q.video_id for q in questions})
    of_video = {v: [i for i, q in enumerate(questions) if q.video_id == v] for v in videos}
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(bootstrap.RESAMPLES):
        drawn = [of_video[videos[index]] for index in rng.integers(len(videos), size=len(videos))]
        chosen = [index for indices in drawn for index in indices]
        rows.append(tables.accuracies([questions[i] for i in chosen], [hits[i] for i in chosen]))
    result = {}
    for column in tables.COLUMNS:
        values = [row[column] for row in rows if not math.isnan(row[column])]
        result[column] = tuple(np.percentile(values, [2.5, 97.5]))
    return result


def test_the_intervals_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    questions = some_questions(rng, 14)
    hits = {name: rng.random(len(questions)) < share for name, share in (('a', 0.7), ('b', 0.4))}
    found = bootstrap.intervals(questions, hits, seed=3)
    for method in hits:
        expected = plain_intervals(questions, hits[method], seed=3)
        for column in tables.COLUMNS:
            assert found[method][column] == pytest.approx(expected[column], abs=1e-9)


def test_intervals_of_differences_compare_methods_on_the_same_videos():
    rng = np.random.default_rng(1)
    questions = some_questions(rng, 14)
    hits = {name: rng.random(len(questions)) < share for name, share in (('a', 0.7), ('b', 0.4))}
    gained = hits['a'].astype(int) - hits['b']
    found = bootstrap.difference_intervals(questions, {**hits, 'c': hits['b']}, 'b')
    assert list(found) == ['a', 'c']
    expected = plain_intervals(questions, gained, seed=0)
    for column in tables.COLUMNS:
        assert found['a'][column] == pytest.approx(expected[column], abs=1e-9)
        assert found['c'][column] == (0, 0)


def test_the_intervals_are_scipys_where_every_resample_has_every_type():
    rng = np.random.default_rng(2)
    kinds = vocabulary.TYPES
    questions = [question(f'v{video}', kind) for video in range(200) for kind in kinds]
    hits = rng.random(len(questions)) < 0.6
    by_video = hits.reshape(200, len(kinds))

    def overall(drawn, axis):
        return 100 * by_video[drawn].mean(axis=(axis - 1, axis))

    expected = scipy.stats.bootstrap(
        (np.arange(200),), overall, n_resamples=bootstrap.RESAMPLES, batch=100,
        method='percentile', rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    low, high = bootstrap.intervals(questions, {'a': hits})['a']['Avg']
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.3)
    assert 4 < high - low < 6


def test_the_same_seed_gives_the_same_intervals_and_another_one_others():
    rng = np.random.default_rng(1)
    questions = some_questions(rng, 50)
    hits = {'a': rng.random(len(questions)) < 0.6}
    first = bootstrap.intervals(questions, hits)
    assert first == bootstrap.intervals(questions, hits)
    assert first != bootstrap.intervals(questions, hits, seed=1)
    for column, (low, high) in first['a'].items():
        assert 0 <= low <= tables.accuracies(questions, hits['a'])[column] <= high <= 100


def covered(rng, repeats, clustered):
    """How often the interval holds the true accuracy; some videos are hard, some are easy."""
    count = 0
    for _ in range(repeats):
        shares = rng.beta(0.6, 0.4, 60)
        videos = np.repeat(np.arange(60), 5)
        hits = rng.random(300) < shares[videos]
        questions = [question(f'v{v}' if clustered else f'v{i}') for i, v in enumerate(videos)]
        low, high = bootstrap.intervals(questions, {'a': hits})['a']['Avg']
        count += low <= 60 <= high
    return count / repeats


def test_nineteen_intervals_of_twenty_hold_the_truth():
    rng = np.random.default_rng(0)
    assert 0.9 <= covered(rng, 120, clustered=True) <= 0.99
    # As if the questions of a video had nothing to do with each other.
    assert covered(rng, 60, clustered=False) < 0.85


def test_the_videos_of_a_performance_are_drawn_together():
    """Mirrored copies and further minutes of version 2 are no independent videos."""
    rng = np.random.default_rng(4)
    names = [f'abc-_{index:03d}xyz' for index in range(40)]  # 11 characters, as YouTube's
    suffixes = ('', '_#02', '_flip', '_#02_flip')
    hits = np.repeat(rng.random(40) < 0.6, len(suffixes))
    copies = [question(name + suffix) for name in names for suffix in suffixes]
    together = [question(name) for name in names for _ in suffixes]
    apart = [question(f'v{index}') for index in range(len(hits))]
    found = [
        bootstrap.intervals(each, {'a': hits})['a']['Avg'] for each in (copies, together, apart)
    ]
    assert found[0] == found[1]
    widths = [high - low for low, high in found]
    assert widths[0] > 1.7 * widths[2]  # about twice as wide, for four copies of each


def test_videos_of_version_2_that_share_a_performance():
    path = published.path('v2_test_bias')
    asked, _ = music_avqa.read_questions(path, 'test')
    names = {each.video_id for each in asked}
    copies = {name for name in names if name.endswith('_flip') or '_#0' in name}
    assert len(copies) == 14 and sum(name.endswith('_flip') for name in copies) == 12
    clusters = {videos.performance_name(name) for name in names}
    # A copy whose original has no question is a cluster of its own.
    alone = {videos.performance_name(name) for name in copies} - names
    assert len(clusters) == len(names - copies) + len(alone)
    assert len(bootstrap._per_performance(asked, {})) == len(clusters) < len(names)


def test_one_video_says_nothing_and_an_absent_type_is_absent():
    found = bootstrap.intervals([question('v')] * 4, {'a': [True, False, False, False]})['a']
    assert found['A Count'] == found['Avg'] == (25, 25)
    assert all(math.isnan(bound) for bound in found['V Avg'])
    margins = bootstrap.margins({'a': {'Avg': (50.0, 58.0)}})
    assert margins == {'a': {'Avg': 4.0}}
