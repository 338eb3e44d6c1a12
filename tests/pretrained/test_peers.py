"""peers.load: names, prefixes, kinds of files and errors."""

import re

import numpy as np
import pytest
import torch

from amuse_jax.benchmark.reference.peers import avst as reference_avst
from amuse_jax.benchmark.reference.peers import parts as reference_parts
from amuse_jax.errors import StageError
from amuse_jax.models import peers
from amuse_jax.models.peers import avst
from amuse_jax.models.peers.grounded_head import HeadConfig
from amuse_jax.pretrained import key_mapping
from amuse_jax.pretrained import peers as names
from amuse_jax.pretrained.peers import adapters
from tests.paths import SHARED

LISTS = SHARED / 'facts/peers_keys'  # names and shapes of the public classes' state dicts
LAVISH, DGSCT = (pytest.param(name, marks=pytest.mark.slow) for name in ('lavish', 'dgsct'))


def read_list(name):
    """Return arrays of the listed shapes that take no memory."""
    lines = (LISTS / f'{name}.txt').read_text().splitlines()
    arrays = {}
    for line in lines:
        key, shape, dtype = re.fullmatch(r'(\S+) \((.*)\) (\w+)', line).groups()
        shape = tuple(int(side) for side in shape.split(',') if side.strip())
        arrays[key] = np.broadcast_to(np.zeros((), dtype), shape)
    return arrays


@pytest.mark.skipif(not LISTS.is_dir(), reason='the key lists are not in this clone')
@pytest.mark.parametrize('name', ['avst', 'pstp_released', 'pstp_paper', LAVISH, DGSCT])
def test_listed_state_dict_of_the_public_class(name):
    arrays = read_list(name.partition('_')[0])
    config, table = names.READERS[name](peers.catalogue.find(name).config, arrays)
    assert not key_mapping.differences(names.abstract(name, config), arrays, table)


def test_unknown_peer():
    with pytest.raises(StageError, match='no peer is called .*expected one of avst'):
        peers.example('avts')


def test_file_of_something_else(tmp_path):
    torch.save({'module.conv.weight': torch.zeros(3)}, tmp_path / 'other.pt')
    with pytest.raises(StageError, match='none of the 1 arrays'):
        peers.load('avst', str(tmp_path / 'other.pt'))


def test_sizes_that_no_model_can_have(tmp_path):
    """The width is read from the file, and 510 channels do not divide into four heads."""
    torch.save({'fc_gl.weight': torch.zeros(510, 1020)}, tmp_path / 'odd.pt')
    with pytest.raises(key_mapping.ConversionError, match='510 channels do not divide into 4'):
        peers.load('avst', str(tmp_path / 'odd.pt'))


def test_a_first_stage_of_another_width_is_refused(tmp_path):
    sizes = avst.AVSTConfig(HeadConfig(16, match_widths=(12, 8, 6)), audio_width=10)
    first = reference_parts.randomise(reference_avst.AVSTGrounding(sizes))
    torch.save(first.state_dict(), tmp_path / 'first.pt')
    found = names.load_grounding(str(tmp_path / 'first.pt'), sizes.head)
    np.testing.assert_array_equal(found.audio.outer.kernel[...], first.fc_a2.weight.detach().T)
    with pytest.raises(key_mapping.ConversionError, match='has 16 channels .* expected 512'):
        names.load_grounding(str(tmp_path / 'first.pt'), HeadConfig(512))


@pytest.mark.parametrize('down', [(0, 24, 1, 1), (5, 24, 1, 1), (24, 0, 1, 1), (24, 48)])
def test_sizes_of_an_adapter_that_is_none(down):
    arrays = {
        'audio_adapter_blocks_p1.0.my_tokens': np.zeros((64, 192)),
        'audio_adapter_blocks_p1.0.down_sampler.weight': np.zeros(down),
    }
    assert adapters.sizes_of(arrays, 192) == {}


def test_examples_are_the_same_every_time():
    first, second = (peers.example('avst_grounding', batch=3, seed=1) for _ in range(2))
    assert first['visual'].shape == (3, 14, 14, 512)
    assert all((first[name] == second[name]).all() for name in first)
