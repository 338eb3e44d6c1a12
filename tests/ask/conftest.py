"""Models with random weights, which need no training."""

import functools

import numpy as np
import pytest

from amuse_jax.ask import arrays, card
from amuse_jax.ask.familiar import Familiar
from amuse_jax.ask.trained import Trained
from amuse_jax.data.prepared import Prepared
from amuse_jax.media.log_mel import LogMel
from amuse_jax.regions.stage import class_names
from amuse_jax.training.train import leakage
from tests.training import conftest as small

tiny = small.tiny  # the fixture


@pytest.fixture(scope='session')
def make_trained(tiny, tmp_path_factory):
    """A function that returns a model with random weights: make_trained(without='encoder').

    A file of a few bytes stands in the place of its detector's weights.
    """
    config, inputs = tiny
    folder = tmp_path_factory.mktemp('trained')
    questions = Prepared(inputs['prepare']).questions('train')
    leakage.save_known_questions(folder, questions)
    (folder / 'detector.safetensors').write_bytes(b'weights')

    def make(without='', epochs=0, seed=0, head='ours'):
        changed = config.copy_and_resolve_references()
        changed.without, changed.train.epochs = without, epochs
        changed.model.head = head
        names = tuple(class_names(inputs['rois']))
        random = np.random.default_rng(seed)
        amuse, encoder = (
            structure.merge({name: _draw(random, name, shape) for name, shape in shapes.items()})
            for structure, shapes in arrays.structures(changed, names)
        )
        return Trained(
            config=changed,
            amuse=amuse,
            encoder=encoder,
            class_names=names,
            detector=folder / 'detector.safetensors',
            familiar=Familiar.from_questions(questions),
            seen=folder / leakage.FILE,
            card=functools.partial(card.from_folders, {'prepare': folder, 'train': folder}),
        )

    return make


def _draw(random, name, shape):
    if name.endswith('variance'):
        return np.ones(shape.shape, shape.dtype)
    return (0.2 * random.normal(size=shape.shape)).astype(shape.dtype)


@pytest.fixture(scope='session')
def draw_video():
    """A function that returns the record and the regions of a random video for a config."""

    def draw(config, seed=0):
        random = np.random.default_rng(seed)
        data, lead = config.data, (config.data.segments, config.rois.regions)
        size = (data.segments, data.image_size, data.image_size, 3)
        frames = LogMel.from_settings(config).frames
        record = {
            'frames': random.integers(0, 255, size).astype(np.uint8),
            'frame_mask': np.ones(data.segments, bool),
            'shape': (9, 16),
            'log_mel': random.normal(-40, 5, (data.segments, frames, config.audio.mels)),
            'audio_mask': np.arange(data.segments) < data.segments - 1,
            'seconds': data.segment_seconds * data.segments,
        }
        record['log_mel'] = record['log_mel'].astype(np.float16)
        regions = {
            'boxes': random.uniform(0, 1, (*lead, 4)).astype(np.float16),
            'classes': random.integers(-1, 2, lead).astype(np.int16),
            'scores': random.uniform(0.3, 1, lead).astype(np.float16),
            'features': random.normal(size=(*lead, config.rois.feature_size)).astype(np.float16),
        }
        return record, regions

    return draw
