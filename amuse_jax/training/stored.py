"""Arrays over all records, computed once in batches, memory-mapped afterwards.

While unfinished, `FOLDER/NAME.npy.part` holds the rows so far and `FOLDER/rows.json` says how many
of them are on the disk, so that a killed run goes on with the next batch. All hosts compute, the
first writes.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import grain
import numpy as np
from tqdm import tqdm

from amuse_jax.data import pipeline
from amuse_jax.errors import StageError
from amuse_jax.system import hosts, preemption
from amuse_jax.system.files import write_json
from amuse_jax.training.watchdog import Watchdog

FLUSH_SECONDS = 5.0
ALL = -1  # instead of a number of rows: the arrays are whole


def fill(
    folder: Path,
    names: Sequence[str],
    count: int,
    batches: Callable[[Sequence[int]], grain.MapDataset],
    compute: Callable[[pipeline.Batch], Mapping[str, np.ndarray]],
    description: str,
    watchdog: Watchdog,
) -> None:
    """Computes `names` for records 0..count - 1 unless the folder holds them already.

    Args:
      folder: gets NAME.npy of shape (count, ...) for every name.
      names: what `compute` returns.
      count: of records.
      batches: the batches over some records in order, padded at the end.
      compute: from a batch to arrays (videos, ...).
      description: the progress bar's name.
      watchdog: not entered yet.

    Raises:
      Preempted: several processes got a notice; the rows so far are on the disk.
    """
    done = hosts.first_says(_rows_done(folder, names) if hosts.is_first() else 0)
    if done == ALL:
        return
    rows, flushed = _Rows(folder, names, count, done), time.monotonic()
    is_quiet = not hosts.is_first()
    bar = tqdm(total=count, initial=done, desc=description, unit='video', disable=is_quiet)
    with watchdog, bar:
        for batch in pipeline.iterate(batches(range(done, count))) if done < count else ():
            rows.add(compute(batch))
            bar.update(rows.done - bar.n)
            watchdog.at(f'{description}: the videos from {rows.done} on')
            is_noticed = preemption.is_noticed()
            is_due = time.monotonic() - flushed > FLUSH_SECONDS
            if is_noticed or is_due or rows.done == count:
                rows.flush()
                flushed = time.monotonic()
            if is_noticed:
                raise preemption.Preempted
        rows.finish()
        hosts.wait('stored')


def read(folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays by name, memory-mapped.

    Raises:
      StageError: one is missing or is no array.
    """
    arrays = {}
    for name in names:
        path = _whole(folder, name)
        try:
            arrays[name] = np.load(path, mmap_mode='r', allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StageError(
                f'{path} cannot be read ({error}); delete {folder} and run its stage again'
            ) from error
    return arrays


class _Rows:
    """Rows on their way into the folder; the first process alone writes.

    Attributes:
      done: how many there are.
    """

    def __init__(self, folder: Path, names: Sequence[str], count: int, done: int):
        self._folder, self._names, self._count, self.done = folder, names, count, done
        self._parts: dict[str, np.memmap] = {}
        if hosts.is_first() and 0 < done < count:
            self._parts = {n: np.lib.format.open_memmap(_part(folder, n), 'r+') for n in names}

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        arrays = {name: np.asarray(arrays[name]) for name in self._names}
        if hosts.is_first() and not self._parts:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._parts = {n: _create(self._folder, n, self._count, arrays[n]) for n in arrays}
        size = min(len(arrays[self._names[0]]), self._count - self.done)
        for name, part in self._parts.items():
            part[self.done : self.done + size] = arrays[name][:size]
        self.done += size

    def flush(self) -> None:
        """A killed run goes on from here."""
        for part in self._parts.values():
            part.flush()
        if hosts.is_first():
            write_json(self._folder / 'rows.json', self.done)

    def finish(self) -> None:
        """Gives the arrays their names."""
        if hosts.is_first():
            for name in self._names:
                if not _whole(self._folder, name).exists():
                    _part(self._folder, name).replace(_whole(self._folder, name))
            (self._folder / 'rows.json').unlink()


def _rows_done(folder: Path, names: Sequence[str]) -> int:
    """Rows of an unfinished folder that are on the disk, or ALL."""
    if all(_whole(folder, name).exists() for name in names):
        return ALL
    progress = folder / 'rows.json'
    return json.loads(progress.read_text()) if progress.exists() else 0


def _whole(folder: Path, name: str) -> Path:
    return folder / f'{name}.npy'


def _part(folder: Path, name: str) -> Path:
    return folder / f'{name}.npy.part'


def _create(folder: Path, name: str, count: int, rows: np.ndarray) -> np.memmap:
    path, shape = _part(folder, name), (count, *rows.shape[1:])
    part = np.lib.format.open_memmap(path, 'w+', dtype=rows.dtype, shape=shape)
    with open(path, 'r+b') as file:  # a disk too small is an error now; later it would be SIGBUS
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return part
