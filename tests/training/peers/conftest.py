"""Fixtures: the tiny data set with arrays of the stage features, and a peer trained on them."""

import json

import numpy as np
import pytest

from amuse_jax.data.prepared import Prepared
from amuse_jax.training.peers import stage
from tests.training import conftest as small

SHAPES = {
    'vggish': (60, 128),
    'resnet18': (small.SEGMENTS, 4, 4, 512),
    'clip_frames': (60, 512),
    'clip_patches': (60, 49, 512),
}


def peer_config(name, **settings):
    """Return the tiny config with a peer that trains for a few steps on features."""
    config = small.tiny_config()
    config.features.arrays = tuple(SHAPES)
    config.peer.update(name=name, epochs=3, batch_size=4, questions=2, learning_rate=3e-4)
    config.peer.update(settings)
    return config


def interrupted(train_step, last, interrupt):
    """Return a loop.train_step whose step calls `interrupt` before the step of number `last`."""

    def build(*arguments, **options):
        step = train_step(*arguments, **options)

        class Step:
            trace = step.trace

            def __call__(self, state, *others):
                if int(state.step) == last:
                    interrupt()
                return step(state, *others)

        return Step()

    return build


def avst_config():
    """Return the tiny config of AVST with grounding epochs."""
    return peer_config('avst', grounding=dict(epochs=2, batch_size=9, learning_rate=1e-3))


@pytest.fixture(scope='session')
def features(tiny, tmp_path_factory):
    """The folders of prepare and features; videos of the two classes have other features."""
    _, inputs = tiny
    folder, random = tmp_path_factory.mktemp('features'), np.random.default_rng(0)
    videos = sum(small.VIDEOS.values())
    for name, shape in SHAPES.items():
        array = np.abs(random.normal(size=(videos, *shape)))
        array[1::2, ..., ::2] += 2
        np.save(folder / f'{name}.npy', array.astype(np.float16))
    texts = list(dict.fromkeys(q.text for q in Prepared(inputs['prepare']).questions()))
    (folder / 'questions.json').write_text(json.dumps(texts))
    for name, shape in (('clip_question', (512,)), ('clip_words', (77, 512))):
        array = random.normal(size=(len(texts), *shape)).astype(np.float16)
        np.save(folder / f'{name}.npy', array)
    return {'prepare': inputs['prepare'], 'features': folder}


@pytest.fixture(scope='session')
def trained_avst(features, tmp_path_factory):
    """(config, the folders up to train, the summary of train) of AVST with grounding epochs."""
    config = avst_config()
    folder = tmp_path_factory.mktemp('train-avst')
    summary = stage.run(config, folder, features)
    return config, features | {'train': folder}, summary
