"""Kaldi's filter banks beside those of the library transformers, which follow torchaudio's."""

import numpy as np
import pytest
from transformers import audio_utils

from amuse_jax.features import fbank


def sound(samples, level=0.1):
    """Noise over a tone that gets louder."""
    times = np.arange(samples) / fbank.SAMPLE_RATE
    tone = np.sin(2 * np.pi * 440 * times) * np.linspace(0, 1, samples)
    noise = np.random.default_rng(0).normal(0, 0.3, samples)
    return (level * (tone + noise)).astype(np.float32)


def reference(samples, bands):
    filters = audio_utils.mel_filter_bank(
        num_frequency_bins=257, num_mel_filters=bands, min_frequency=20, max_frequency=8000,
        sampling_rate=16000, norm=None, mel_scale='kaldi', triangularize_in_mel_space=True,
    )  # fmt: skip
    window = audio_utils.window_function(400, 'hann', periodic=False)
    return audio_utils.spectrogram(
        samples, window, frame_length=400, hop_length=160, fft_length=512, power=2.0,
        center=False, preemphasis=0.97, mel_filters=filters, log_mel='log',
        mel_floor=1.192092955078125e-07, remove_dc_offset=True,
    ).T  # fmt: skip


@pytest.mark.filterwarnings('ignore:At least one mel filter has all zero values')
@pytest.mark.parametrize(('bands', 'samples'), [(192, 31_200), (128, 96_000), (23, 400)])
def test_banks_equal_those_of_transformers(bands, samples):
    waveform = sound(samples)
    found = fbank.kaldi(waveform, bands)
    assert found.shape == (1 + (samples - 400) // 160, bands) and found.dtype == np.float32
    np.testing.assert_allclose(found, reference(waveform, bands), atol=2e-5)


def test_silence_is_the_floor_and_less_than_a_frame_is_nothing():
    assert (fbank.kaldi(np.zeros(560), 64) == np.float32(np.log(2.0**-23))).all()
    assert fbank.kaldi(np.zeros(399), 64).shape == (0, 64)


@pytest.mark.filterwarnings('ignore:At least one mel filter has all zero values')
@pytest.mark.parametrize('seconds', [60.0, 10.5])
def test_lavish_takes_ten_windows_that_are_spread_over_the_sound(seconds):
    waveform = np.zeros(60 * 16000, np.float32)
    length = round(seconds * 16000)
    waveform[:length] = sound(length) + 0.2  # an offset, which the loader removes
    found = fbank.LAVISHWindows()(waveform, seconds)['fbank']
    assert found.shape == (10, 192, 192)
    centred = waveform[:length].astype(np.float64) - waveform[:length].mean(dtype=np.float64)
    for step in range(10):
        start = int(step * (length - 32_800) / 9)
        banks = reference(centred[start : start + 31_200], 192)
        assert len(banks) == 193
        expected = (banks[:192] + 5.385333061218262) / (2 * 3.5928637981414795)
        np.testing.assert_allclose(found[step], expected, atol=2e-5)


def test_a_sound_shorter_than_a_window_is_padded_after_the_normalisation():
    waveform = np.zeros(60 * 16000, np.float32)
    waveform[:16000] = sound(16000)
    found = fbank.LAVISHWindows()(waveform, 1.0)['fbank']
    assert (found[:, :98] != 0).all() and (found[:, 98:] == 0).all()
    np.testing.assert_array_equal(found[0], found[9])
    assert not fbank.LAVISHWindows()(waveform, 0.01)['fbank'].any()
