"""Eq. 4-6 against a plain transcription, on tempi that are known."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra import numpy as arrays

from amuse_jax.annotate import rhythm, tempo
from amuse_jax.errors import StageError

RATE = 22050
SETTINGS = dict(
    segments=10, segment_seconds=6.0, rhythm_seconds=6.0, threshold=0.25, tracker='tempo'
)


def clicks(bpm: float, seconds: float) -> np.ndarray:
    """Short decaying tones at the given tempo."""
    samples = np.zeros(round(seconds * RATE), np.float32)
    time = np.arange(1500) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 800 * time) * np.exp(-time * 80)).astype(np.float32)
    for start in np.arange(0, seconds, 60 / bpm):
        place = samples[round(start * RATE) :][: len(tone)]
        place += tone[: len(place)]
    return samples


@pytest.mark.parametrize('bpm', [80, 120, 150])
def test_click_track_has_its_tempo(bpm):
    assert tempo.estimate(clicks(bpm, 12), RATE) == pytest.approx(bpm, rel=0.04)


def test_silence_has_no_tempo():
    assert tempo.estimate(np.zeros(RATE * 6, np.float32), RATE) == 0.0
    assert tempo.track(np.zeros(RATE * 6, np.float32), RATE) == 0.0


def test_estimate_equals_the_beat_tracker():
    random = np.random.default_rng(0)
    for seconds in (1.0, 3.0, 6.0, 12.0, 20.0):
        noise = random.normal(0, 0.003, round(seconds * RATE)).astype(np.float32)
        for bpm in random.uniform(50, 200, 4):
            waveform = clicks(bpm, seconds) + noise
            assert tempo.estimate(waveform, RATE) == tempo.track(waveform, RATE)
    silence = np.zeros(5 * RATE, np.float32)
    one_onset = np.concatenate([silence, clicks(10, 1)])  # the prior alone decides
    fading = np.concatenate([noise[: 2 * RATE], clicks(70, 5), silence])
    for waveform in (one_onset, fading):
        assert tempo.estimate(waveform, RATE) == tempo.track(waveform, RATE)


def test_change_of_tempo_is_labelled_at_the_segment_before_it():
    waveform = np.concatenate([clicks(90, 24), clicks(150, 36)])
    for tracker in rhythm.TRACKERS:
        result = rhythm.annotate(waveform, RATE, **SETTINGS | {'tracker': tracker})
        np.testing.assert_array_equal(result.labels, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        assert result.bpm[1] == pytest.approx(90, rel=0.05)
        assert result.bpm[7] == pytest.approx(150, rel=0.05)
        assert result.labels.dtype == result.bpm.dtype == np.float32


def test_equations_as_written():
    waveform = np.concatenate([clicks(90, 6), clicks(97, 6), clicks(140, 6), clicks(60, 12)])
    segments, seconds, share = 5, 6, 0.25
    bpm = []
    for i in range(segments):
        a_i = waveform[i * seconds * RATE : (i + 1) * seconds * RATE]  # Eq. 4
        bpm.append(tempo.track(a_i, RATE))
    threshold = share * tempo.track(waveform, RATE)  # Eq. 5
    expected = [float(abs(bpm[i] - bpm[i + 1]) > threshold) for i in range(segments - 1)]  # Eq. 6
    result = rhythm.annotate(waveform, RATE, **SETTINGS | {'segments': segments})
    np.testing.assert_array_equal(result.labels, [*expected, 0.0])
    np.testing.assert_allclose(result.bpm, bpm, rtol=1e-6)
    assert result.mean_bpm * share == threshold


@hypothesis.given(
    arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 320)),
    st.floats(1, 320),
    st.floats(0.05, 1),
)
def test_labels_follow_equation_6(bpm, mean_bpm, threshold):
    labels = rhythm.change_labels(bpm, mean_bpm, threshold)
    for i in range(len(bpm) - 1):
        assert labels[i] == (1.0 if abs(bpm[i] - bpm[i + 1]) > threshold * mean_bpm else 0.0)
    assert labels[-1] == 0.0


def test_short_audio_leaves_the_padding_unlabelled():
    waveform = np.concatenate([clicks(90, 12), clicks(150, 6.5)])
    result = rhythm.annotate(waveform, RATE, **SETTINGS)
    np.testing.assert_array_equal(result.labels, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    assert (result.bpm[:3] > 0).all() and (result.bpm[3:] == 0).all()


def test_no_sound_at_all():
    for samples in (0, 100, 3 * RATE):
        result = rhythm.annotate(np.zeros(samples, np.float32), RATE, **SETTINGS)
        assert not result.labels.any() and not result.bpm.any() and result.mean_bpm == 0.0


def test_sound_behind_the_last_segment_is_left_out():
    waveform = np.concatenate([clicks(120, 12), clicks(60, 30)])
    short = rhythm.annotate(waveform[: 12 * RATE], RATE, **SETTINGS | {'segments': 2})
    long = rhythm.annotate(waveform, RATE, **SETTINGS | {'segments': 2})
    assert long.mean_bpm == short.mean_bpm
    np.testing.assert_array_equal(long.labels, short.labels)


def test_segments_of_another_length_than_the_snippets():
    labels = np.array([0, 1, 1, 0, 0, 1], np.float32)  # changes at 6, 9 and 18 s of 3-s snippets
    bpm = np.array([100, 60, 90, 120, 120, 120.0])
    mapped, mean = rhythm.to_segments(labels, bpm, 3.0, 4, 6.0)
    np.testing.assert_array_equal(mapped, [1, 1, 1, 0])  # 6 s: the end of the first segment
    np.testing.assert_allclose(mean, [80, 105, 120, 0])
    same, own = rhythm.to_segments(labels, bpm, 6.0, 6, 6.0)
    np.testing.assert_array_equal(same, labels)
    np.testing.assert_allclose(own, bpm)


def test_unknown_tracker():
    with pytest.raises(StageError, match='rhythm.tracker'):
        rhythm.annotate(np.zeros(RATE, np.float32), RATE, **SETTINGS | {'tracker': 'madmom'})
