"""VGGish beside a plain description of the TF-slim release."""

import numpy as np
import torch
import torch.nn.functional as F
from transformers import audio_utils

from amuse_jax.features import vggish


def front_end(second):
    """The input of one second, by the functions of the library transformers."""
    filters = audio_utils.mel_filter_bank(
        num_frequency_bins=257, num_mel_filters=64, min_frequency=125, max_frequency=7500,
        sampling_rate=16000, norm=None, mel_scale='kaldi', triangularize_in_mel_space=True,
    )  # fmt: skip
    window = audio_utils.window_function(400, 'hann', periodic=True)
    magnitudes = audio_utils.spectrogram(
        second.astype(np.float64), window, frame_length=400, hop_length=160, fft_length=512,
        power=1.0, center=False,
    )  # fmt: skip
    return np.log(filters.T @ magnitudes + 0.01).T[:96]


def network(state, x):
    """(n, 96, 64) -> (n, 128), from the names of the public file."""

    def convolve(x, index):
        name = f'features.{index}'
        return F.relu(F.conv2d(x, state[f'{name}.weight'], state[f'{name}.bias'], padding=1))

    x = F.max_pool2d(convolve(x[:, None], 0), 2)
    x = F.max_pool2d(convolve(x, 3), 2)
    x = F.max_pool2d(convolve(convolve(x, 6), 8), 2)
    x = F.max_pool2d(convolve(convolve(x, 11), 13), 2)
    assert x.shape[1:] == (512, 6, 4)
    x = x.movedim(1, -1).reshape(len(x), -1)  # TensorFlow's order: time, bands, channels
    for index in (0, 2, 4):
        x = F.relu(x @ state[f'embeddings.{index}.weight'].T + state[f'embeddings.{index}.bias'])
    return x


def test_each_second_has_the_vector_of_its_first_96_frames(weights):
    rng = np.random.default_rng(0)
    samples = np.zeros(60 * 16000, np.float32)
    samples[: 5 * 8000] = rng.normal(0, 0.2, 5 * 8000)  # two and a half seconds
    found = vggish.Seconds(weights.vggish)(samples, 2.5)['vggish']
    assert found.shape == (60, 128) and not found[3:].any()
    inputs = np.stack([front_end(second) for second in samples.reshape(60, -1)[:3]])
    state = torch.load(weights.vggish, weights_only=True)
    expected = network(state, torch.tensor(inputs, dtype=torch.float32)).numpy()
    assert 0.05 < (expected > 0).mean() < 0.95 and expected.std() > 0.05
    np.testing.assert_allclose(found[:3], expected, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_a_longer_sound_than_a_minute_has_sixty_seconds(weights):
    samples = np.random.default_rng(1).normal(0, 0.2, 60 * 16000).astype(np.float32)
    found = vggish.Seconds(weights.vggish)(samples, 75.3)['vggish']
    assert found.shape == (60, 128) and found.any(-1).all()
