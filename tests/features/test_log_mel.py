"""DG-SCT's log-mels beside torchlibrosa's, the front end of the released HTS-AT."""

import numpy as np
import torch
import torchlibrosa

from amuse_jax.features import log_mel
from amuse_jax.models.peers import dgsct


def test_each_step_is_its_first_second_ten_times():
    rng = np.random.default_rng(0)
    samples = np.zeros(60 * 32000, np.float32)
    heard = 8 * 32000
    samples[:heard] = rng.normal(0, 0.2, heard)
    found = log_mel.RepeatedSeconds()(samples, 8.0)['log_mel_seconds']
    assert found.shape == (10, dgsct.FRAMES, 64) and not found[2:].any()
    spectrogram = torchlibrosa.Spectrogram(n_fft=1024, hop_length=320, window='hann', center=True)
    bank = torchlibrosa.LogmelFilterBank(
        sr=32000, n_fft=1024, n_mels=64, fmin=50, fmax=14000, ref=1.0, amin=1e-10, top_db=None
    )
    for step in (0, 1):
        second = samples[step * 192000 :][:32000]
        tiled = torch.tensor(np.concatenate([second] * 10))[None]
        expected = bank(spectrogram(tiled))[0, 0].numpy()
        np.testing.assert_allclose(found[step], expected, atol=1e-4)
