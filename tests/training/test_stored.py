import grain
import numpy as np
import pytest

from amuse_jax.stages import StageError
from amuse_jax.training import stored

COUNT = 11


def batches(records):
    padded = list(records) + [0] * (-len(records) % 3)
    return grain.MapDataset.source(padded).map(lambda index: {'record': np.int32(index)}).batch(3)


def compute(batch):
    levels = batch['record'].astype(np.float32)
    return {'levels': np.stack([levels, levels**2], -1), 'mask': batch['record'] > 4}


def test_every_record_has_its_row(tmp_path):
    stored.fill(tmp_path, ('levels', 'mask'), COUNT, batches, compute, 'test')
    arrays = stored.read(tmp_path, ('levels', 'mask'))
    np.testing.assert_array_equal(arrays['levels'][:, 1], np.arange(COUNT) ** 2)
    assert arrays['mask'].dtype == bool and arrays['mask'].sum() == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ['levels.npy', 'mask.npy']


@pytest.mark.parametrize('killed_after', [1, 2, 3])
def test_an_interrupted_fill_goes_on(tmp_path, monkeypatch, killed_after):
    monkeypatch.setattr(stored, 'FLUSH_SECONDS', 0.0)
    seen = []

    def interrupted(batch):
        if len(seen) == killed_after:
            raise KeyboardInterrupt
        seen.append(batch['record'])
        return compute(batch)

    with pytest.raises(KeyboardInterrupt):
        stored.fill(tmp_path, ('levels', 'mask'), COUNT, batches, interrupted, 'test')
    with pytest.raises(StageError, match='levels.npy cannot be read'):
        stored.read(tmp_path, ('levels',))
    rest = []

    def counted(batch):
        rest.append(batch['record'])
        return compute(batch)

    stored.fill(tmp_path, ('levels', 'mask'), COUNT, batches, counted, 'test')
    assert len(seen) + len(rest) == 4  # no batch twice
    np.testing.assert_array_equal(
        stored.read(tmp_path, ('levels',))['levels'][:, 0], np.arange(COUNT)
    )


def test_a_finished_fill_computes_nothing(tmp_path):
    stored.fill(tmp_path, ('levels', 'mask'), COUNT, batches, compute, 'test')
    stored.fill(tmp_path, ('levels', 'mask'), COUNT, None, None, 'test')


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    stored.fill(tmp_path, ('levels', 'mask'), COUNT, batches, compute, 'test')
    (tmp_path / 'mask.npy').rename(tmp_path / 'mask.npy.part')
    (tmp_path / 'rows.json').write_text(str(COUNT))
    stored.fill(tmp_path, ('levels', 'mask'), COUNT, None, None, 'test')
    assert len(stored.read(tmp_path, ('mask',))['mask']) == COUNT
