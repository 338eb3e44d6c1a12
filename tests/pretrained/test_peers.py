"""peers.load: names, prefixes, kinds of files and errors."""

import re

import numpy as np
import pytest
import torch

from amuse_jax.errors import StageError
from amuse_jax.models import peers
from amuse_jax.pretrained import key_mapping
from amuse_jax.pretrained import peers as names
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


def test_examples_are_the_same_every_time():
    first, second = (peers.example('avst_grounding', batch=3, seed=1) for _ in range(2))
    assert first['visual'].shape == (3, 14, 14, 512)
    assert all((first[name] == second[name]).all() for name in first)
