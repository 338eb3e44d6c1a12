"""Settings of an exported model are checked by name, type and size."""

import json

import pytest

from amuse_jax.ask import settings
from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from tests.training.conftest import tiny_config


def test_settings_survive_json():
    for config in (default_config(), tiny_config()):
        found = settings.restore(json.loads(json.dumps(settings.select(config))))
        assert settings.select(found) == settings.select(config)
        assert found.model.visual == config.model.visual and found.audio == config.audio


def test_settings_of_an_older_version_keep_their_defaults():
    values = settings.select(default_config())
    del values['model.visual.pretrained_windows']
    assert settings.restore(values).model.visual.pretrained_windows == (0, 0, 0, 0)


def test_neither_paths_nor_limits_of_the_machine_are_among_them():
    values = settings.select(default_config())
    assert not [name for name in values if name.startswith(('data.r', 'data.v', 'mesh', 'check'))]
    assert settings.TOKENIZER not in values


@pytest.mark.parametrize(
    ('name', 'value', 'expected'),
    [
        ('data.segments', 0, 'more than 0'),
        ('data.segments', -1, 'more than 0'),
        ('data.segments', True, 'an integer'),
        ('data.segments', 3.5, 'an integer'),
        ('data.segments', '3', 'an integer'),
        ('data.segments', 10**400, 'at most 1000'),
        ('data.segment_seconds', float('nan'), 'a number'),
        ('data.segment_seconds', float('inf'), 'a number'),
        ('model.visual.window', 4096, 'at most 64'),
        ('model.visual.depths', [2, 2], 'a list of 4 numbers'),
        ('model.visual.depths', [2, 2, 'x', 2], 'an integer'),
        ('model.visual.depths', 2, 'a list of 4 numbers'),
        ('model.dtype', 'int8', "one of 'float32', 'bfloat16'"),
        ('without', 'everything', "one of ''"),
        ('audio.mels', None, 'an integer'),
        ('rois.min_score', -0.1, 'at least 0 and at most 1'),
    ],
)
def test_a_wrong_value_is_refused(name, value, expected):
    values = settings.select(default_config()) | {name: value}
    with pytest.raises(
        StageError, match=f'the setting {name} is .* expected .*{expected}'
    ) as error:
        settings.restore(values)
    assert len(str(error.value)) < 250


def test_an_unknown_name_is_refused():
    with pytest.raises(StageError, match='the settings loop.x are unknown'):
        settings.restore({'loop.x': 1})
