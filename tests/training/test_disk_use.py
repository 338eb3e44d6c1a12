"""The training stages store as many bytes as disk.py predicts."""

import numpy as np
import pytest

from amuse_jax.run import disk

VIDEOS = 14


def stored_bytes(folder):
    return sum(np.load(path, mmap_mode='r').nbytes for path in folder.glob('*.npy'))


def test_stored_features(pretrained):
    config, inputs, _ = pretrained
    predicted = disk.pretrain_bytes(config, VIDEOS) - disk.pretrain_bytes(config, 0)
    assert stored_bytes(inputs['pretrain'] / 'features') == predicted / 2
    assert stored_bytes(inputs['pretrain'] / 'first_features') == predicted / 2


@pytest.mark.slow
def test_stored_tokens(trained):
    config, inputs, _ = trained
    predicted = disk.train_bytes(config, VIDEOS) - disk.train_bytes(config, 0)
    assert stored_bytes(inputs['train'] / 'encoded') == predicted
