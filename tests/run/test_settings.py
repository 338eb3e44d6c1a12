import importlib
import re
import sys

import pytest
from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.run import settings
from tests.paths import ROOT

CONFIGS = ('v1', 'v2', 'demo', 'synthetic')


def _config(name, argument=''):
    return importlib.import_module(f'configs.{name}').get_config(argument)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_passes_its_checks(name, tmp_path):
    config = _config(name)
    if not config.synthetic.videos:
        config.data.root = str(tmp_path)
    settings.check(config)
    settings.check_data(config)
    assert config.name == name


@pytest.mark.parametrize('part', settings.PARTS)
def test_an_ablation_is_named_after_the_config_file(part):
    assert _config('demo', f'without={part}').without == part


@pytest.mark.parametrize('argument', ['rois', 'without=drums', 'with=rois', 'without='])
def test_an_unknown_argument_is_refused(argument):
    with pytest.raises(ValueError, match=r'expected without=encoder\|rhythm\|sources\|rois'):
        _config('demo', argument)


@pytest.mark.parametrize(
    ('name', 'value', 'sentence'),
    [
        ('without', 'drums', "config.without is 'drums'; expected one of"),
        ('sources.stems', 'spleeter', "config.sources.stems is 'spleeter'; expected one of"),
        ('model.dtype', 'float8', "config.model.dtype is 'float8'"),
        ('model.head', 'theirs', "config.model.head is 'theirs'; expected one of 'ours', 'paper'"),
        ('pretrain.trainable', '(', "config.pretrain.trainable is '(', which is not a regular"),
        ('train.batch_size', 0, 'config.train.batch_size is 0; expected a positive number'),
        (
            'train.parts',
            3,
            'batch_size is 4; expected a multiple of config.train.parts, which is 3',
        ),
        ('train.parts', -1, 'config.train.parts is -1; expected 0 or a positive number'),
        ('train.clip_norm', -1.0, 'config.train.clip_norm is -1.0; expected 0 or a positive'),
        ('pretrain.warmup_epochs', float('nan'), 'config.pretrain.warmup_epochs is nan; expected'),
        ('pretrain.val_share', 1.5, 'config.pretrain.val_share is 1.5; expected a share'),
        (
            'model.visual.pretrained_windows',
            (12, 12, 6),
            'pretrained_windows is (12, 12, 6); expected the windows of the four stages',
        ),
        ('train.time_shift', 1.5, 'config.train.time_shift is 1.5; expected a share, from 0 to 1'),
        ('train.cache', 'cloud', "config.train.cache is 'cloud'; expected one of 'auto', 'device'"),
        (
            'loop.profile_steps',
            '13:10',
            "config.loop.profile_steps is '13:10'; expected '' or FIRST",
        ),
        ('evaluate.examples', -1, 'config.evaluate.examples is -1; expected 0 or a positive'),
        ('train.halve_every', 0, 'config.train.halve_every is 0; expected a positive number'),
        ('loop.log_steps', 0, 'config.loop.log_steps is 0; expected a positive number'),
        ('loop.keep', 0, 'config.loop.keep is 0; expected a positive number'),
        ('train.learning_rate', float('nan'), 'config.train.learning_rate is nan; expected a'),
        ('pretrain.mix', 2.0, 'config.pretrain.mix is 2.0; expected a share, from 0 to 1'),
        ('train.trainable', 'adapters|(text', 'which is not a regular expression (missing )'),
        ('data.image_size', 96, 'make them equal'),
        ('model.adapters.rounds', 5, 'is not a multiple of the 5 rounds'),
        ('pretrain.segments', 11, 'expected at most config.data.segments = 10'),
        ('model.audio.image_size', 100, 'expected a multiple of config.audio.mels = 64'),
        (
            'data.annotations',
            'v3',
            "config.data.annotations is 'v3'; expected one of 'plain', 'v1'",
        ),
        ('evaluate.leaked', 'hide', "config.evaluate.leaked is 'hide'; expected one of 'refuse'"),
        (
            'evaluate.data.root',
            '/no/such/folder',
            'expected the folder of another data set to evaluate on',
        ),
        (
            'features.arrays',
            ('vggish', 'clip'),
            "config.features.arrays is 'clip'; expected one of 'vggish', 'resnet18', 'clip_frames'",
        ),
        ('rhythm.tracker', 'ear', "config.rhythm.tracker is 'ear'"),
        ('data.root', '/no/such/folder', 'which is not a folder; expected the folder'),
        ('synthetic.videos', 0, 'no data: config.data.root is empty'),
    ],
)
def test_a_wrong_value_is_one_sentence(name, value, sentence):
    config = _config('demo')
    config.update_from_flattened_dict({name: value})
    with pytest.raises(StageError, match=re.escape(sentence)) as caught:
        settings.check(config)
        settings.check_data(config)
    assert '\n' not in str(caught.value)


def test_no_training_at_all_is_refused_and_no_example_pages_are_not():
    config = _config('demo')
    config.evaluate.examples = 0
    settings.check(config)
    config.train.update(head_epochs=0, epochs=0)
    with pytest.raises(StageError, match='are both 0; set one of them'):
        settings.check(config)


def test_predictor_epochs_alone_are_a_pretraining_and_no_epochs_are_not():
    config = _config('demo')
    config.pretrain.epochs = 0
    settings.check(config)
    config.pretrain.predictor_epochs = 0
    with pytest.raises(StageError, match='pretrain.epochs are both 0; set one of them'):
        settings.check(config)


def _setting_names(config, prefix=''):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _setting_names(value, f'{prefix}{name}.')
        else:
            yield prefix + name


def test_every_setting_is_read_somewhere():
    code = '\n'.join(p.read_text() for p in (ROOT / 'amuse_jax').rglob('*.py'))
    unused = [
        name
        for name in _setting_names(_config('demo'))
        if not re.search(rf'\b{name.split(".")[-1]}\b', code)
    ]
    assert not unused


def test_a_missing_apache_beam_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, 'apache_beam', None)
    config = _config('demo')
    config.data.beam = '--runner=FnApiRunner'
    with pytest.raises(StageError, match=r"not installed; run pip install '\.\[beam\]'"):
        settings.check(config)
