import importlib
import subprocess
import sys

import pytest

from amuse_jax.music_avqa import layout
from amuse_jax.run import needs
from tests.paths import ROOT


@pytest.mark.parametrize('name', ['v1', 'v2'])
@pytest.mark.parametrize('scheme', [scheme for scheme in layout.SCHEMES if scheme != 'plain'])
def test_the_message_names_every_file_on_one_screen(name, scheme):
    config = importlib.import_module(f'configs.{name}').get_config()
    config.data.annotations = scheme
    text = needs.message(config)
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 100
    for split, names in layout.FILES[scheme].items():
        assert (f'DIR/{names[0]}' in text) == (not layout.is_optional(scheme, split))
    assert f'check --root=DIR --annotations={scheme}' in text
    assert f'--config=configs/{name}.py --config.data.root=DIR' in text
    assert '--config.rois.weights=WEIGHTS' in text and "pip install '.[uss]'" in text
    assert ('10,518 videos' if scheme.startswith('v2') else '9,288 videos') in text


@pytest.mark.parametrize('name', ['avst', 'dgsct', 'last_att'])
def test_the_message_for_a_peer_names_no_detector(name):
    config = importlib.import_module(f'configs.peers.{name}').get_config()
    text = needs.message(config)
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 100
    assert 'WEIGHTS, a YOLOv8' not in text and 'source separation' not in text
    assert ('checkpoints' in text) == (name != 'avst')
    assert f'--config=configs/peers/{name}.py --config.data.root=DIR' in text
    assert 'rois' not in text and 'train' in text


@pytest.mark.parametrize(
    ('name', 'sizes'),
    [
        # Version 1 has 92,880 segments. prepare: 110,592 + 2 * 38,464 bytes each. rois: 12 regions
        # of 448 numbers, twice. pretrain: 4,631 numbers each, and twice 223 M parameters. train:
        # 208,896 bfloat16 numbers each, and 332 M parameters. Version 2 has 105,180 segments.
        ('v1', '93 GB (prepare 17, rois 2, pretrain 20, train 53)'),
        ('v2', '101 GB (prepare 20, rois 2, pretrain 21, train 58)'),
    ],
)
def test_the_message_states_the_disk_space(name, sizes):
    config = importlib.import_module(f'configs.{name}').get_config()
    assert f'Written in --workdir: at most {sizes}.' in needs.message(config)
    config.model.dtype = 'float32'
    assert {'v1': 'pretrain 20, train 92).', 'v2': 'train 102).'}[name] in needs.message(config)


def test_the_message_names_the_files_of_features():
    config = importlib.import_module('configs.v1').get_config()
    assert 'VGGish' not in needs.message(config)
    config.features.arrays = 'vggish', 'clip_frames'
    text = ' '.join(needs.message(config).split())
    assert 'vggish-10086976.pth, published at harritaylor/torchvggish on GitHub' in text
    assert 'openai/clip-vit-base-patch32' in text and ', features ' in text
    config.features.vggish = 'F'
    assert 'vggish-10086976.pth' not in needs.message(config)


def test_a_config_is_loaded_without_jax():
    """Worker processes load the config too, and JAX takes seconds to import."""
    code = "import sys; from configs import v1; v1.get_config(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
