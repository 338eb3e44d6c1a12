import importlib
import re

import pytest

from amuse_jax.data import audio
from amuse_jax.data.music_avqa import layout, needs


@pytest.mark.parametrize('name', ['v1', 'v2'])
@pytest.mark.parametrize('scheme', [scheme for scheme in layout.SCHEMES if scheme != 'plain'])
def test_a_screen_that_names_every_file(name, scheme):
    config = importlib.import_module(f'configs.{name}').get_config()
    config.data.annotations = scheme
    text = needs.message(config)
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 100
    for split, names in layout.FILES[scheme].items():
        assert (f'DIR/{names[0]}' in text) == (not layout.is_optional(scheme, split))
    assert f'check --root=DIR --annotations={scheme}' in text
    assert f'--config=configs/{name}.py --config.data.root=DIR' in text
    assert ('10,518 videos' if scheme.startswith('v2') else '9,288 videos') in text


def test_the_size_of_the_records():
    config = importlib.import_module('configs.v1').get_config()
    config.data.image_size = 256
    shapes = audio.LogMel.from_settings(config)
    record = shapes.segments * (3 * 256**2 + 2 * shapes.frames * shapes.mels)
    (stated,) = re.findall(r'(\d+) GB of records', needs.message(config))
    assert int(stated) == round(9288 * record / 1e9) == 25
