"""The estimate of the stages before training."""

import pytest

from amuse_jax.features import catalogue
from amuse_jax.run import hours
from configs import v1

ALL = ('prepare', 'annotate', 'rois', 'pretrain', 'train')  # no features without arrays
ONE = sum(hours.CPU_SECONDS.values()) / 3600


def total(config, *, gpus=0, cpus=1, videos=1000, stages=ALL):
    return sum(hours.estimate(config, stages, videos, gpus, cpus).values())


def test_parts_and_cpus_divide_the_hours():
    config = v1.get_config()
    config.sources.stems = 'truth'
    assert total(config) == pytest.approx(1000 * ONE)
    assert total(config, cpus=8) == pytest.approx(1000 * ONE / 8)
    config.data.part = '3/10'
    assert total(config, cpus=8) == pytest.approx(100 * ONE / 8)
    assert total(config, stages=['train']) == 0


def test_a_gpu_leaves_decoding_to_the_cpus():
    config = v1.get_config()
    on_cpus = hours.estimate(config, ['rois'], 1000, 0, 8)['rois']
    assert hours.estimate(config, ['rois'], 1000, 8, 8)['rois'] < on_cpus
    rhythm = [hours.estimate(config, ['annotate'], 800, gpus, 64)['annotate'] for gpus in (0, 1, 8)]
    assert rhythm[0] == rhythm[1] == pytest.approx(8 * rhythm[2])  # one process per GPU


def test_features_take_the_time_of_their_extractors():
    config = v1.get_config()
    assert total(config, stages=['features']) == 0
    config.features.arrays = ('clip_frames', 'clip_patches', 'clip_words')  # one look at a video
    (clip,) = (each for each in catalogue.EXTRACTORS if each.name == 'clip_pictures')
    assert total(config, stages=['features']) == pytest.approx(1000 * clip.cpu_seconds / 3600)
    both = clip.cpu_seconds + catalogue.EXTRACTORS[0].cpu_seconds
    config.features.arrays = ('clip_frames', 'vggish')
    assert total(config, stages=['features'], cpus=4) == pytest.approx(1000 * both / 4 / 3600)
    assert total(config, stages=['features'], gpus=1) < total(config, stages=['features'])
    assert 'features' in hours.describe(config, ['features'], 9288)


def test_the_sentence_says_what_is_not_in_it():
    config = v1.get_config()
    config.data.part = '3/16'
    text = hours.describe(config, ALL, 9288)
    assert 'for 9,288 videos, of which this job does part 3/16' in text
    assert 'the separation of sources comes on top' in text
    config.sources.stems = 'tags'
    text = hours.describe(config, ALL, 9288)
    assert 'separation' not in text and 'the tagger that finds the sources comes on top' in text
    config.sources.stems = 'truth'
    text = hours.describe(config, ALL, 9288)
    assert 'on top' not in text and 'an estimate from the time of one video' in text
