import numpy as np
import pytest

from amuse_jax.annotate import sources, sources_tags
from amuse_jax.errors import StageError
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.pretrained import audioset
from amuse_jax.pretrained.tagging import SoundTags

SETTINGS = dict(segments=3, segment_seconds=2.0, window_seconds=1.0, threshold=0.2)


def frequencies(scores, step_seconds=0.25):
    """Compute the frequencies (segments, instruments) from a dict of scores over time by class."""
    steps = len(next(iter(scores.values())))
    timeline = np.zeros((steps, 527), np.float32)
    for name, values in scores.items():
        timeline[:, audioset.names().index(name)] = values
    tags = SoundTags(timeline.mean(0), timeline, step_seconds)
    return sources_tags.frequencies(tags, **SETTINGS)


def test_frequency_is_the_share_of_windows_whose_mean_score_reaches_the_threshold():
    piano = np.zeros(24)
    piano[:4] = 0.2  # the first window: exactly at the threshold
    piano[8:20] = 0.9  # all of the second segment, half of the third
    piano[4:8] = [0.7, 0, 0, 0]  # 0.175 on average
    found = frequencies({'Piano': piano})
    np.testing.assert_allclose(found[:, INSTRUMENTS.index('piano')], [0.5, 1, 0.5])
    assert found.sum() == 2 and found.shape == (3, 22)


def test_two_classes_of_an_instrument_count_once():
    found = frequencies({'Snare drum': np.full(24, 0.8), 'Cymbal': np.full(24, 0.8)})
    np.testing.assert_array_equal(found[:, INSTRUMENTS.index('drum')], 1)


def test_a_stand_in_class_counts_for_each_of_its_instruments():
    found = frequencies({'Wind instrument, woodwind instrument': np.full(24, 0.8)})
    for name in ('bassoon', 'suona'):
        np.testing.assert_array_equal(found[:, INSTRUMENTS.index(name)], 1)


def test_instruments_are_silent_after_the_end_of_the_sound():
    found = frequencies({'Flute': np.ones(10)})  # 2.5 s
    np.testing.assert_allclose(found[:, INSTRUMENTS.index('flute')], [1, 0.5, 0])


def test_windows_that_do_not_divide_a_segment_are_refused_as_for_stems():
    tags = SoundTags(np.zeros(527, np.float32), np.zeros((16, 527), np.float32), 10 / 16)
    settings = dict(segments=2, segment_seconds=6.0, window_seconds=2.5)
    with pytest.raises(StageError, match='window_seconds is 2.5, which does not divide'):
        sources_tags.frequencies(tags, threshold=0.5, **settings)
    with pytest.raises(StageError, match='window_seconds is 2.5, which does not divide'):
        stems = np.zeros((100, 1), np.float32), np.zeros(1, int), 10
        sources.frequencies(*stems, threshold_db=-40.0, **settings)
