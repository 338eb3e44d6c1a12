"""Fixture of a small finished run: the tiny data set of tests/training and a small model."""

import jax
import numpy as np
import pytest

from amuse_jax.run import made_from, plan
from amuse_jax.system import formats
from amuse_jax.system.files import write_json
from amuse_jax.training.train import answering
from amuse_jax.training.train import stage as train
from tests.evaluation.summaries import SUMMARIES
from tests.training import conftest as small

tiny = small.tiny  # the fixture


@pytest.fixture(scope='session')
def finished(tiny, tmp_path_factory):
    """Train a model; return the config and the folders of the stages up to train by name.

    The model has no towers, because their training takes long to compile. The features of the
    universal encoder are random.
    """
    config, inputs = tiny
    config = config.copy_and_resolve_references()
    config.without = 'encoder'
    config.train.update(head_epochs=1, epochs=0, mirror=0.5, time_shift=0.5)
    inputs = inputs | {name: tmp_path_factory.mktemp(name) for name in ('pretrain', 'train')}
    _write_features(inputs)
    jax.config.update('jax_disable_most_optimizations', True)
    train.run(config, inputs['train'], inputs)
    jax.config.update('jax_disable_most_optimizations', False)
    for name, stage in plan.build_stages(config).items():
        if name in inputs:
            manifest = {
                'format': formats.FORMAT,
                'fingerprint': name,
                'settings': made_from.describe(config, stage.settings, {})['settings'],
                'summary': SUMMARIES.get(name, {}),
            }
            write_json(inputs[name] / 'manifest.json', manifest)
    return config, inputs


def _write_features(inputs):
    random = np.random.default_rng(0)
    labels = {name: np.load(inputs['annotate'] / f'{name}.npy') for name in ('rhythm', 'sources')}
    shape = labels['rhythm'].shape
    width = 8 * small.tiny_config().model.visual.width  # width of the tower's last stage
    features = {name: random.normal(size=(*shape, width)) for name in answering.FEATURES}
    (inputs['pretrain'] / 'features').mkdir()
    for name, array in (features | labels).items():
        np.save(inputs['pretrain'] / f'features/{name}.npy', array.astype(np.float16))
    np.save(inputs['pretrain'] / 'features/segment_mask.npy', np.ones(shape, bool))
