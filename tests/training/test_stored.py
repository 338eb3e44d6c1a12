import subprocess
import sys
from pathlib import Path

import grain
import jax.numpy as jnp
import numpy as np
import pytest

from amuse_jax.errors import StageError
from amuse_jax.training import stored
from amuse_jax.training.watchdog import Watchdog
from tests.training import processes

COUNT = 11


def batches(records):
    padded = list(records) + [0] * (-len(records) % 3)
    return grain.MapDataset.source(padded).map(lambda index: {'record': np.int32(index)}).batch(3)


def compute(batch):
    levels = batch['record'].astype(np.float32)
    return {'levels': np.stack([levels, levels**2], -1), 'mask': batch['record'] > 4}


def compute_and_store(folder, batches, compute, count=COUNT):
    watchdog = Watchdog(folder, 60.0, ['video'] * count)
    stored.compute_and_store(folder, ('levels', 'mask'), count, batches, compute, 'test', watchdog)


def test_every_record_has_its_row(tmp_path):
    compute_and_store(tmp_path, batches, compute)
    arrays = stored.read(tmp_path, ('levels', 'mask'))
    np.testing.assert_array_equal(arrays['levels'][:, 1], np.arange(COUNT) ** 2)
    assert arrays['mask'].dtype == bool and arrays['mask'].sum() == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ['levels.npy', 'mask.npy']


def half_precision(batch):
    """Return bfloat16 levels, among them numbers that float16 cannot hold."""
    levels = compute(batch)['levels'] * 1e5
    return {'levels': levels.astype(jnp.bfloat16), 'mask': batch['record'] > 4}


@pytest.mark.parametrize('killed_after', [None, 2])
def test_bfloat16_comes_back_bit_for_bit(tmp_path, monkeypatch, killed_after):
    monkeypatch.setattr(stored, 'FLUSH_SECONDS', 0.0)
    calls = iter(range(killed_after or 99))

    def interrupted(batch):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return half_precision(batch)

    if killed_after:
        with pytest.raises(KeyboardInterrupt):
            compute_and_store(tmp_path, batches, interrupted)
    compute_and_store(tmp_path, batches, half_precision)
    arrays = stored.read(tmp_path, ('levels', 'mask'))
    assert arrays['levels'].dtype == jnp.bfloat16 and arrays['mask'].dtype == bool
    expected = half_precision({'record': np.arange(COUNT)})['levels']
    np.testing.assert_array_equal(arrays['levels'].view(np.uint16), expected.view(np.uint16))
    # The file itself is one that any reader of NumPy's format knows.
    assert np.load(tmp_path / 'levels.npy').dtype == np.uint16
    assert sorted(p.name for p in tmp_path.iterdir()) == ['dtypes.json', 'levels.npy', 'mask.npy']


def test_arrays_of_older_runs_keep_their_dtype(tmp_path):
    np.save(tmp_path / 'levels.npy', np.arange(6, dtype=np.float16))
    assert stored.read(tmp_path, ('levels',))['levels'].dtype == np.float16


@pytest.mark.parametrize('killed_after', [1, 2, 3])
def test_an_interrupted_computation_resumes(tmp_path, monkeypatch, killed_after):
    monkeypatch.setattr(stored, 'FLUSH_SECONDS', 0.0)
    first = []

    def interrupted(batch):
        if len(first) == killed_after:
            raise KeyboardInterrupt
        first.append(batch['record'])
        return compute(batch)

    with pytest.raises(KeyboardInterrupt):
        compute_and_store(tmp_path, batches, interrupted)
    with pytest.raises(StageError, match='levels.npy cannot be read'):
        stored.read(tmp_path, ('levels',))
    rest = []

    def counted(batch):
        rest.append(batch['record'])
        return compute(batch)

    compute_and_store(tmp_path, batches, counted)
    assert len(first) + len(rest) == 4  # no batch twice
    np.testing.assert_array_equal(
        stored.read(tmp_path, ('levels',))['levels'][:, 0], np.arange(COUNT)
    )


def test_complete_arrays_are_not_computed_again(tmp_path):
    compute_and_store(tmp_path, batches, compute)
    compute_and_store(tmp_path, None, None)


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    compute_and_store(tmp_path, batches, compute)
    (tmp_path / 'mask.npy').rename(tmp_path / 'mask.npy.part')
    (tmp_path / 'rows.json').write_text(str(COUNT))
    compute_and_store(tmp_path, None, None)
    assert len(stored.read(tmp_path, ('mask',))['mask']) == COUNT


def test_an_unfinished_array_takes_only_the_rows_so_far(tmp_path, monkeypatch):
    """No file system has to reserve the whole array, which some can do by writing it only."""
    monkeypatch.setattr(stored, 'FLUSH_SECONDS', 0.0)
    calls = iter(range(2))

    def interrupted(batch):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return compute(batch)

    with pytest.raises(KeyboardInterrupt):
        compute_and_store(tmp_path, batches, interrupted, count=10_000_000)
    part = tmp_path / 'levels.npy.part'
    assert part.stat().st_size == 128 + 6 * 2 * 4
    assert (tmp_path / 'rows.json').read_text().strip() == '6'


def test_an_array_that_an_earlier_version_began_goes_on(tmp_path):
    """Version 1 reserved the whole file and mapped it."""
    for name, rows in compute({'record': np.arange(COUNT)}).items():
        array = np.lib.format.open_memmap(
            tmp_path / f'{name}.npy.part', 'w+', dtype=rows.dtype, shape=rows.shape
        )
        array[:3] = rows[:3]
        array.flush()
    (tmp_path / 'rows.json').write_text('3')
    compute_and_store(tmp_path, batches, compute)
    levels = stored.read(tmp_path, ('levels',))['levels']
    np.testing.assert_array_equal(levels[:, 1], np.arange(COUNT) ** 2)


def test_a_disk_that_is_too_small_is_reported_at_the_start(tmp_path):
    """The test has its own small file system, in which a memory-mapped file could be too large."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from ml_collections import ConfigDict
import test_stored
from amuse_jax.errors import StageError
from amuse_jax.run.stage import Stage, run_stage

def run(config, folder, inputs):
    test_stored.compute_and_store(folder, test_stored.batches, test_stored.compute, count=1_000_000)

try:
    run_stage(Stage('store', run), ConfigDict(), Path({str(tmp_path)!r}), {{}})
except StageError as error:
    print(error)
    sys.exit(3)
"""
    script = f'mount -t tmpfs -o size=1m tmpfs {tmp_path} || exit 77; {sys.executable} -c "$0"'
    try:
        done = subprocess.run(
            ['unshare', '-rm', 'sh', '-c', script, code],
            env=processes.environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip('no unshare here')
    if done.returncode == 77:
        pytest.skip('no file system can be mounted here')
    assert done.returncode == 3, done.stderr[-3000:]
    assert f'store stopped: no space is left on the disk of {tmp_path}/store' in done.stdout
