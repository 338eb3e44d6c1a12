"""What the training stages leave is what disk.py foretells."""

import numpy as np

from amuse_jax.run import disk

VIDEOS = 14


def stored(folder):
    return sum(np.load(path, mmap_mode='r').nbytes for path in folder.glob('*.npy'))


def test_stored_features(pretrained):
    config, inputs, _ = pretrained
    foretold = disk.of_pretraining(config, VIDEOS) - disk.of_pretraining(config, 0)
    assert stored(inputs['pretrain'] / 'features') == foretold / 2
    assert stored(inputs['pretrain'] / 'first_features') == foretold / 2


def test_stored_tokens(trained):
    config, inputs, _ = trained
    foretold = disk.of_training(config, VIDEOS) - disk.of_training(config, 0)
    assert stored(inputs['train'] / 'encoded') == foretold
