import dataclasses

import librosa
import numpy as np
import pytest
import torch
import torchlibrosa

from amuse_jax.config import default_config
from amuse_jax.media.log_mel import LogMel, mel_filters
from amuse_jax.synthetic.score.score import Note
from amuse_jax.synthetic.sound import sound

SECONDS = np.arange(2 * 64000) / 32000


def front_end(segments=2, seconds=2.0):
    config = default_config()
    config.data.segments = segments
    config.data.segment_seconds = seconds
    return LogMel.from_settings(config)


def reference(samples, segments):
    """HTS-AT's front end by librosa, in float64."""
    filters = librosa.filters.mel(sr=32000, n_fft=1024, n_mels=64, fmin=50, fmax=14000)
    decibels = []
    for segment in np.split(samples.astype(np.float64), segments):
        spectrum = librosa.stft(
            segment, n_fft=1024, hop_length=320, center=True, pad_mode='reflect'
        )
        power = filters.astype(np.float64) @ np.abs(spectrum) ** 2
        decibels.append(librosa.power_to_db(power.T, ref=1.0, amin=1e-10, top_db=None))
    return np.stack(decibels)


def recorded(instrument):
    """Four seconds of a sound bank's recordings of a real instrument."""
    notes = [Note(0.5 * i, 0.45, pitch, 100) for i, pitch in enumerate((60, 64, 67, 72, 67, 64))]
    samples = sound.play_notes(instrument, notes, 4.0).astype(np.float64)
    return 0.5 * samples[: len(SECONDS)] / np.abs(samples).max()


def bell(hz):
    return np.sin(2 * np.pi * hz * SECONDS) * np.exp(-3 * (SECONDS % 0.5))


SIGNALS = {
    'noise': np.random.default_rng(0).standard_normal(len(SECONDS)) * 0.1,
    'sine': 0.5 * np.sin(2 * np.pi * 440 * SECONDS),
    'chirp': 0.5 * np.sin(2 * np.pi * (50 + 1500 * SECONDS) * SECONDS),
    'clicks': (np.arange(len(SECONDS)) % 16000 == 0) * 0.9,
    'saw': (SECONDS * 220) % 1 - 0.5,
    'bells': 0.2 * (bell(523.25) + bell(659.26) + bell(783.99)),
    'violin': recorded('violin'),
    'piano': recorded('piano'),
    'faint': np.random.default_rng(1).standard_normal(len(SECONDS)) * 1e-4,
}


@pytest.mark.parametrize('name', SIGNALS)
def test_equals_librosa(name):
    samples = SIGNALS[name].astype(np.float32)
    found, expected = np.asarray(front_end()(samples)), reference(samples, 2)
    assert found.shape == (2, 201, 64) and found.dtype == np.float32
    # Further below the loudest, what leaks from it drowns in the rounding of float32.
    above = expected > expected.max() - 80
    assert np.abs(found - expected)[above].max() < 1e-3


@pytest.mark.parametrize('name', SIGNALS)
def test_equals_torchlibrosa(name):
    """HTS-AT's own front end, with its released settings."""
    samples = SIGNALS[name].astype(np.float32)
    spectrogram = torchlibrosa.Spectrogram(n_fft=1024, hop_length=320, win_length=1024)
    log_mel = torchlibrosa.LogmelFilterBank(
        sr=32000, n_fft=1024, n_mels=64, fmin=50, fmax=14000, ref=1.0, amin=1e-10, top_db=None
    )
    with torch.no_grad():
        expected = log_mel(spectrogram(torch.tensor(samples.reshape(2, -1))))[:, 0].numpy()
    found = np.asarray(front_end()(samples))
    assert found.shape == expected.shape
    # Its own rounding is 2e-3 dB from 80 dB below the loudest on, against librosa in float64.
    above = expected > expected.max() - 70
    assert np.abs(found - expected)[above].max() < 1e-3


def test_filters_are_triangles_of_area_one_between_the_edges():
    filters, hz = mel_filters(front_end()), np.linspace(0, 16000, 513)[:, None]
    assert filters.shape == (513, 64) and filters.dtype == np.float32
    heard = hz[(filters > 0).any(1)]
    assert 50 < heard.min() < 100 and 13500 < heard.max() < 14000
    wide = (filters > 0).sum(0) > 8  # narrower ones are sampled too coarsely to be measured
    areas = filters.sum(0) * hz[1]
    assert wide.sum() > 10 and np.abs(areas[wide] - 1).max() < 0.05


def test_six_seconds_have_601_frames():
    log_mel = front_end(segments=10, seconds=6.0)
    assert (log_mel.segment_samples, log_mel.frames) == (192000, 601)


def test_silence_lies_on_the_floor():
    np.testing.assert_allclose(front_end()(np.zeros(128000, np.float32)), -100)


def test_segments_do_not_hear_each_other():
    samples = SIGNALS['noise'].astype(np.float32)
    loud = np.concatenate([samples[:64000], np.ones(64000, np.float32)])
    np.testing.assert_array_equal(front_end()(samples)[0], front_end()(loud)[0])


def test_another_length_is_refused():
    with pytest.raises(ValueError, match='128000'):
        front_end()(np.zeros(1000, np.float32))


@pytest.mark.parametrize(
    'rate, window, mels, low, high',
    [(32000, 1024, 64, 50, 14000), (32000, 1024, 64, 0, 16000), (8000, 256, 16, 0, 900)],
)
def test_the_filters_are_librosas_bit_by_bit(rate, window, mels, low, high):
    settings = dataclasses.replace(
        front_end(), sample_rate=rate, window=window, mels=mels, low_hz=low, high_hz=high
    )
    expected = librosa.filters.mel(sr=rate, n_fft=window, n_mels=mels, fmin=low, fmax=high)
    np.testing.assert_array_equal(mel_filters(settings), expected.T)
