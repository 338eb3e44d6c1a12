"""Shards of arrays are merged by row; a damaged one is named."""

import numpy as np
import pytest

from amuse_jax.errors import StageError
from amuse_jax.system import shard_arrays
from amuse_jax.training import stored


@pytest.fixture
def shards(tmp_path):
    """Write five items in shards of two; item i holds i in 'a', and 10 i in 'b'."""
    paths = []
    for start in (0, 2, 4):
        items = np.arange(start, min(start + 2, 5))
        arrays = {
            'a': items.astype(np.float16)[:, None, None] * np.ones((1, 2, 3), np.float16),
            'b': 10 * items.astype(np.int16),
        }
        reasons = ['broken' if item == 3 else '' for item in items]
        paths.append(tmp_path / f'{start}.npz')
        shard_arrays.write(paths[-1], arrays, reasons)
    return paths


def test_rows_are_those_of_the_items(shards, tmp_path):
    rows = [4, 0, 3, 0, 1, 4]  # in no order, with repeats, and without item 2
    shard_arrays.merge(['a', 'b'], shards, rows, 2, tmp_path / 'out')
    found = stored.read(tmp_path / 'out', ['a', 'b'])
    assert found['a'].shape == (6, 2, 3) and found['a'].dtype == np.float16
    assert found['a'][:, 1, 2].tolist() == rows and found['b'].tolist() == [10 * r for r in rows]
    assert found['b'].dtype == np.int16


def test_reasons_are_those_of_the_items(shards):
    assert shard_arrays.reasons_of(shards, list('vwxyz')) == {'y': 'broken'}


def test_a_damaged_shard_is_named_and_nothing_is_written(shards, tmp_path):
    shards[1].write_bytes(shards[1].read_bytes()[:100])
    with pytest.raises(StageError, match='2.npz is damaged.*delete it'):
        shard_arrays.merge(['a'], shards, [0, 2], 2, tmp_path / 'out')
    assert not list((tmp_path / 'out').iterdir())
    with pytest.raises(StageError, match='is damaged'):
        shard_arrays.merge(['c'], shards, [0], 2, tmp_path / 'out')
