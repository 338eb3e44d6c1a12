"""Arrays over all records, computed once in batches, memory-mapped afterwards.

While unfinished, `FOLDER/NAME.npy.part` holds the rows so far and `FOLDER/rows.json` says how many
of them are on the disk, so that a killed run goes on with the next batch. All hosts compute, the
first writes.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import grain
import numpy as np
from tqdm import tqdm

from amuse_jax import hosts, stages
from amuse_jax.data import pipeline

FLUSH_SECONDS = 5.0


def fill(
    folder: Path,
    names: Sequence[str],
    count: int,
    batches: Callable[[Sequence[int]], grain.MapDataset],
    compute: Callable[[pipeline.Batch], Mapping[str, np.ndarray]],
    description: str,
) -> None:
    """Computes `names` for records 0..count - 1 unless the folder holds them already.

    Args:
      folder: gets NAME.npy of shape (count, ...) for every name.
      names: what `compute` returns.
      count: of records.
      batches: the batches over some records in order, padded at the end.
      compute: from a batch to arrays (videos, ...).
      description: the progress bar's name.
    """
    paths = [folder / f'{name}.npy' for name in names]
    progress = folder / 'rows.json'
    done = json.loads(progress.read_text()) if progress.exists() else 0
    # The others may look later, when the first has gone on.
    done = hosts.first_says(-1 if all(path.exists() for path in paths) else done)
    if done == -1:
        return
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, np.memmap] = {}
    if done and hosts.is_first():
        parts = {
            n: np.lib.format.open_memmap(_part(folder, n), 'r+') for n in names if done < count
        }
    flushed = time.monotonic()
    with tqdm(
        total=count, initial=done, desc=description, unit='video', disable=not hosts.is_first()
    ) as bar:
        for batch in pipeline.iterate(batches(range(done, count))) if done < count else ():
            rows = {name: np.asarray(array) for name, array in compute(batch).items()}
            if not parts and hosts.is_first():
                parts = {name: _create(folder, name, count, rows[name]) for name in names}
            size = min(len(rows[names[0]]), count - done)
            for name, part in parts.items():
                part[done : done + size] = rows[name][:size]
            done += size
            bar.update(size)
            if parts and (time.monotonic() - flushed > FLUSH_SECONDS or done == count):
                _flush(parts.values())
                stages.write_json(progress, done)
                flushed = time.monotonic()
    if hosts.is_first():
        for name, path in zip(names, paths):
            if not path.exists():
                _part(folder, name).replace(path)
        progress.unlink()
    hosts.wait('stored')


def read(folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays by name, memory-mapped.

    Raises:
      StageError: one is missing or is no array.
    """
    arrays = {}
    for name in names:
        path = folder / f'{name}.npy'
        try:
            arrays[name] = np.load(path, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError) as error:
            raise stages.StageError(
                f'{path} cannot be read ({error}); delete {folder} and run its stage again'
            ) from error
    return arrays


def _part(folder: Path, name: str) -> Path:
    return folder / f'{name}.npy.part'


def _create(folder: Path, name: str, count: int, rows: np.ndarray) -> np.memmap:
    shape = (count, *rows.shape[1:])
    return np.lib.format.open_memmap(_part(folder, name), 'w+', dtype=rows.dtype, shape=shape)


def _flush(parts: Iterable[np.memmap]) -> None:
    for part in parts:
        part.flush()
