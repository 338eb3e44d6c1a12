"""Which seconds a video has, and which extractors some arrays need."""

import numpy as np

from amuse_jax.features import catalogue
from amuse_jax.models import peers


def test_padding_of_an_encoder_is_no_second():
    begins = np.arange(60)
    for seconds, count in ((13.02, 13), (13.2, 14), (0.05, 1), (60.0, 60), (75.0, 60)):
        assert catalogue.has_begun(begins, seconds).sum() == count
    ends = np.array([[2.0], [8.4]])
    assert catalogue.has_begun(begins, ends).sum(1).tolist() == [2, 9]


def test_an_extractor_has_the_wanted_arrays_only():
    found = catalogue.chosen(['clip_patches', 'fbank'])
    assert [each.name for each in found] == ['clip_pictures', 'fbank']
    assert list(found[0].shapes) == ['clip_patches']
    assert sorted(catalogue.ARRAYS) == sorted(
        name for each in catalogue.EXTRACTORS for name in each.shapes
    )


def test_shapes_are_those_of_the_inputs_of_the_compared_systems():
    shapes = {name: s for each in catalogue.EXTRACTORS for name, s in each.shapes.items()}
    inputs = {name: peers.example(name, batch=1, seed=0) for name in ('avst', 'pstp_paper')}
    assert inputs['avst']['visual'].shape[1:] == shapes['resnet18']
    assert inputs['avst']['audio'].shape[1:] == (10, shapes['vggish'][1])  # every sixth second
    pstp = {'audio': 'vggish', 'frames': 'clip_frames', 'patches': 'clip_patches'}
    pstp |= {'words': 'clip_words', 'question': 'clip_question'}
    for name, array in pstp.items():
        assert inputs['pstp_paper'][name].shape[1:] == shapes[array], name
    assert peers.example('lavish', batch=1, seed=0)['audio'].shape[1:] == shapes['fbank']
    assert peers.example('dgsct', batch=1, seed=0)['audio'].shape[1:] == shapes['log_mel_seconds']
