"""AST's tokens beside the front end and the network of the library transformers."""

import numpy as np
import torch
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from amuse_jax.features import audio_spectrogram


def test_tokens_are_those_of_the_patches_that_see_the_step(weights):
    rng, length = np.random.default_rng(0), 6 * 16000
    samples = np.zeros(60 * 16000, np.float32)
    heard = length + length // 2
    samples[:heard] = rng.normal(0, 0.2, heard) * np.linspace(0.1, 1, heard)
    found = audio_spectrogram.Steps(weights.ast)(samples, heard / 16000)['ast']
    assert found.shape == (10, 12 * 59, 768) and not found[2:].any()
    steps = [samples[:length], samples[length:heard]]
    inputs = ASTFeatureExtractor()(steps, sampling_rate=16000, return_tensors='pt').input_values
    model = ASTForAudioClassification.from_pretrained(weights.ast).eval()
    with torch.inference_mode():
        tokens = model.audio_spectrogram_transformer(inputs).last_hidden_state[:, 2:].numpy()
    maps = tokens.reshape(2, 12, 101, 768)[:, :, :59].reshape(2, -1, 768)
    assert maps.std() > 0.1
    np.testing.assert_allclose(found[:2], maps, atol=1e-4)
    # The last column that is kept sees no frame of the padding, the next one does.
    frames = 1 + (length - 400) // 160
    assert 10 * 58 + 16 <= frames < 10 * 59 + 16


def test_less_than_a_frame_of_sound_is_padding(weights):
    samples = np.zeros(60 * 16000, np.float32)
    found = audio_spectrogram.Steps(weights.ast)(samples, 0.01)['ast']
    assert np.isfinite(found).all() and found[0].any() and not found[1:].any()
