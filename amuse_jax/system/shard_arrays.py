"""Merges shards of arrays, as `sharded.map_shards` lets them be written, into one file per array.

A shard is an .npz file. Its arrays have one row per item, and so has the array 'reasons': it says
why an item could not be read, and is '' for all others.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from amuse_jax.errors import StageError
from amuse_jax.system.files import write_atomically

REASONS = 'reasons'


def write(path: Path, arrays: Mapping[str, np.ndarray], reasons: Sequence[str]) -> None:
    """Write one shard.

    Args:
      path: the .npz file.
      arrays: arrays by name; row i belongs to item i.
      reasons: for each item why it could not be read; '' if it could.
    """
    np.savez(path, **{REASONS: np.array(reasons, str)}, **arrays)


def merge(
    names: Sequence[str],
    shard_paths: Sequence[Path],
    rows: Sequence[int],
    shard_size: int,
    folder: Path,
) -> None:
    """Merge the arrays of all shards into FOLDER/NAME.npy, each of which appears as a whole.

    Args:
      names: names of the arrays.
      shard_paths: shards in order, as `write` writes them; at least one.
      rows: for each of the N rows of the result, the index of its item over all shards.
      shard_size: items per shard; the last one may have fewer.
      folder: where the arrays are written.

    Raises:
      StageError: a shard is damaged.
    """
    for name in names:
        write_atomically(
            folder / f'{name}.npy',
            lambda path, name=name: _write_merged(name, shard_paths, rows, shard_size, path),
        )


def reasons_of(shard_paths: Sequence[Path], items: Sequence[str]) -> dict[str, str]:
    """Return the reason for every item that could not be read.

    Args:
      shard_paths: shards in order.
      items: the items of all shards, in order.

    Raises:
      StageError: a shard is damaged.
    """
    reasons = [reason for path in shard_paths for reason in _read(path, REASONS).tolist()]
    return {item: reason for item, reason in zip(items, reasons, strict=True) if reason}


def _write_merged(
    name: str, shard_paths: Sequence[Path], rows: Sequence[int], shard_size: int, path: Path
) -> None:
    """Write one array.

    The rows are written, not memory-mapped: a full disk is then an error and no signal.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)  # each shard is read once
    opened, array = 0, _read(shard_paths[0], name)
    with open(path, 'wb') as file:
        header = {
            'descr': np.lib.format.dtype_to_descr(array.dtype),
            'fortran_order': False,
            'shape': (len(rows), *array.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for record in order:
            shard, row = divmod(rows[record], shard_size)
            if shard != opened:
                opened, array = shard, _read(shard_paths[shard], name)
            file.seek(start + record * array[row].nbytes)
            file.write(np.ascontiguousarray(array[row]).data)


def _read(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file[name]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StageError(
            f'{path} is damaged ({error}); delete it and run the same command again'
        ) from error
