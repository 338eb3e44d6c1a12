"""Tests of the source frequencies from stems."""

import json

import numpy as np
import pytest
import soundfile

from amuse_jax.annotate import sources
from amuse_jax.errors import StageError
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.pretrained import audioset

RATE = 8000
VIOLIN, CELLO = INSTRUMENTS.index('violin'), INSTRUMENTS.index('cello')
SETTINGS = dict(segments=3, segment_seconds=6.0, window_seconds=1.0, threshold_db=-40.0)


def stem(*intervals, seconds=18, level_db=-20.0):
    """Return noise of the given RMS level inside the intervals, and silence outside them."""
    samples = np.zeros(seconds * RATE, np.float32)
    noise = np.random.default_rng(0).normal(0, 10 ** (level_db / 20), len(samples))
    for start, end in intervals:
        piece = slice(round(start * RATE), round(end * RATE))
        samples[piece] = noise[piece]
    return samples


def test_windows_with_sound_are_counted():
    stems = np.stack([stem((0, 6), (12, 15)), stem((7, 8))], axis=1)
    result = sources.frequencies(stems, np.array([VIOLIN, CELLO]), RATE, **SETTINGS)
    assert result.shape == (3, 22) and result.dtype == np.float32
    np.testing.assert_allclose(result[:, VIOLIN], [1, 0, 0.5])
    np.testing.assert_allclose(result[:, CELLO], [0, 1 / 6, 0])
    assert np.delete(result, [VIOLIN, CELLO], axis=1).sum() == 0


def test_two_stems_of_an_instrument_add_up_and_voices_do_not_count():
    stems = np.stack([stem((0, 18)), stem((0, 9)), stem((0, 18))], axis=1)
    result = sources.frequencies(stems, np.array([VIOLIN, VIOLIN, -1]), RATE, **SETTINGS)
    np.testing.assert_allclose(result[:, VIOLIN], [2, 1.5, 1])
    assert np.delete(result, VIOLIN, axis=1).sum() == 0


def test_threshold_is_a_level_relative_to_full_scale():
    stems = np.stack([stem((0, 18), level_db=-39), stem((0, 18), level_db=-41)], axis=1)
    owners = np.array([VIOLIN, CELLO])
    result = sources.frequencies(stems, owners, RATE, **SETTINGS)
    np.testing.assert_allclose(result[:, VIOLIN], 1)
    np.testing.assert_allclose(result[:, CELLO], 0)
    as_int = np.round(stems * 2**15).astype(np.int16)
    np.testing.assert_array_equal(sources.frequencies(as_int, owners, RATE, **SETTINGS), result)


def test_levels_of_windows():
    tone = 0.5 * np.sin(np.arange(4 * RATE) * 2 * np.pi * 100 / RATE)
    levels = sources.levels_db(tone[:, None].astype(np.float32), RATE, 5)
    np.testing.assert_allclose(levels[:4, 0], 20 * np.log10(0.5 / np.sqrt(2)), atol=1e-3)
    assert levels[4, 0] == -np.inf


def test_stems_shorter_and_longer_than_the_record():
    owner = np.array([VIOLIN])
    short = sources.frequencies(stem((0, 7), seconds=7)[:, None], owner, RATE, **SETTINGS)
    np.testing.assert_allclose(short[:, VIOLIN], [1, 1 / 6, 0])
    long = sources.frequencies(stem((0, 30), seconds=30)[:, None], owner, RATE, **SETTINGS)
    np.testing.assert_allclose(long[:, VIOLIN], [1, 1, 1])
    none = sources.frequencies(np.zeros((100, 0)), np.zeros(0, int), RATE, **SETTINGS)
    np.testing.assert_array_equal(none, np.zeros((3, 22)))


def test_windows_must_divide_segments():
    with pytest.raises(StageError, match='window_seconds is 4.0'):
        sources.frequencies(
            stem((0, 6))[:, None], np.array([0]), RATE, **SETTINGS | {'window_seconds': 4.0}
        )


def performer(instrument, heard, channel):
    return {'instrument': instrument, 'heard_instrument': heard, 'channel': channel}


def test_true_stems_belong_to_the_instrument_that_is_heard(tmp_path):
    (tmp_path / 'truth').mkdir()
    performers = [
        performer('cello', 'cello', None),  # silent
        performer('piano', 'violin', 1),  # looks like a piano, sounds like a violin
        performer('cello', 'cello', 0),
    ]
    (tmp_path / 'truth' / 'a.json').write_text(json.dumps({'performers': performers}))
    channels = np.stack([stem((0, 6)), stem((6, 12)), stem((0, 18))], axis=1)
    soundfile.write(tmp_path / 'truth' / 'a.flac', channels, RATE, subtype='PCM_16')
    stems, owners, rate = sources.truth_stems(tmp_path, 'a')
    assert rate == RATE and owners.tolist() == [CELLO, VIOLIN, -1]  # the last one is a voice-over
    result = sources.frequencies(stems, owners, rate, **SETTINGS)
    np.testing.assert_allclose(result[:, CELLO], [1, 0, 0])
    np.testing.assert_allclose(result[:, VIOLIN], [0, 1, 0])
    assert result.sum() == 2


def test_missing_truth_is_one_sentence(tmp_path):
    with pytest.raises(StageError, match=r"has no truth/.*sources\.stems='uss'"):
        sources.truth_stems(tmp_path, 'a')
    (tmp_path / 'truth').mkdir()
    with pytest.raises(StageError, match='has no truth/a.json'):
        sources.truth_stems(tmp_path, 'a')
    (tmp_path / 'truth' / 'a.json').write_text('{')
    with pytest.raises(StageError, match='is not valid JSON'):
        sources.truth_stems(tmp_path, 'a')
    (tmp_path / 'truth' / 'a.json').write_text('{"performers": []}')
    (tmp_path / 'truth' / 'a.flac').write_text('no flac')
    with pytest.raises(StageError, match='cannot be read'):
        sources.truth_stems(tmp_path, 'a')


def test_every_instrument_has_a_class_of_audioset():
    assert tuple(audioset.CLASSES) == INSTRUMENTS
    assert set(audioset.STAND_INS) < set(INSTRUMENTS)
    names = sorted({name for classes in audioset.CLASSES.values() for name in classes})
    labels = {name: index for index, name in enumerate(names)}
    indices = audioset.class_indices(labels)
    assert [names[i] for i in indices[VIOLIN]] == ['Violin, fiddle']
    own = [c for name, c in zip(INSTRUMENTS, indices) if name not in audioset.STAND_INS]
    assert len({i for classes in own for i in classes}) == sum(
        map(len, own)
    )  # no class belongs to two instruments
