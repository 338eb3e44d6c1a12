"""Arrays with one row per record, computed once in batches, stored as .npy and memory-mapped.

During the computation, `FOLDER/NAME.npy.part` holds the rows so far and `FOLDER/rows.json` the
number of rows on the disk, so a killed run continues with the next batch. All hosts compute; the
first one writes. NumPy's own format is enough, because the arrays are written in order and read by
row; it needs no library such as zarr. It knows no bfloat16: such an array is stored as uint16, the
bits of its numbers, and `FOLDER/dtypes.json` has its dtype.
"""

import errno
import functools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import grain
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from amuse_jax.data import pipeline
from amuse_jax.data.records import RecordReader
from amuse_jax.errors import StageError
from amuse_jax.system import hosts, preemption
from amuse_jax.system.files import rename, write_json
from amuse_jax.training import sharding
from amuse_jax.training.watchdog import Watchdog

FLUSH_SECONDS = 5.0
COMPLETE = -1  # instead of a number of rows: the arrays are complete


def compute_and_store(
    folder: Path,
    names: Sequence[str],
    count: int,
    batches: Callable[[Sequence[int]], grain.MapDataset],
    compute: Callable[[pipeline.Batch], Mapping[str, np.ndarray]],
    description: str,
    watchdog: Watchdog,
) -> None:
    """Compute arrays for the records 0..count - 1 and store them, unless they are complete already.

    Args:
      folder: gets NAME.npy of shape (count, ...) for every name.
      names: names of the arrays that `compute` returns.
      count: number of records.
      batches: returns the batches over the given records, in order, padded at the end.
      compute: returns arrays of shape (videos, ...) for a batch.
      description: name of the progress bar.
      watchdog: a watchdog that is not entered yet.

    Raises:
      Preempted: there are several processes and a notice of preemption arrived; the rows so far
        are on the disk.
    """
    done = hosts.broadcast_from_first(_rows_done(folder, names) if hosts.is_first() else 0)
    if done == COMPLETE:
        return
    writer, flushed = _RowWriter(folder, names, count, done), time.monotonic()
    is_quiet = not hosts.is_first()
    bar = tqdm(total=count, initial=done, desc=description, unit='video', disable=is_quiet)
    with watchdog, bar:
        for batch in pipeline.iterate(batches(range(done, count))) if done < count else ():
            writer.add(compute(batch))
            bar.update(writer.done - bar.n)
            watchdog.heartbeat(f'{description}: the videos from {writer.done} on')
            is_noticed = preemption.notice_received()
            is_due = time.monotonic() - flushed > FLUSH_SECONDS
            if is_noticed or is_due or writer.done == count:
                writer.flush()
                flushed = time.monotonic()
            if is_noticed:
                raise preemption.Preempted
        writer.finish()
        hosts.barrier('stored')


def compute_for_videos(
    config: ConfigDict,
    folder: Path,
    names: Sequence[str],
    reader: RecordReader,
    videos: int,
    compute: Callable[[pipeline.Batch], Mapping[str, np.ndarray]],
    description: str,
) -> None:
    """Compute arrays for every record from batches of whole videos; see `compute_and_store`.

    Args:
      config: the config of the run.
      folder, names, compute, description: see `compute_and_store`.
      reader: reads the records.
      videos: number of videos in a batch.
    """
    rows = sharding.local_rows(videos, sharding.mesh(config.mesh))
    batches = functools.partial(pipeline.whole_videos, reader, {}, videos=videos, rows=rows)
    watchdog = Watchdog(
        folder, config.loop.stuck_seconds, [video['video_id'] for video in reader.videos]
    )
    compute_and_store(folder, names, len(reader), batches, compute, description, watchdog)


def read(folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the stored arrays by name, memory-mapped.

    Raises:
      StageError: a file is missing or is not an array.
    """
    arrays = {}
    for name in names:
        path = _final_path(folder, name)
        try:
            array = np.load(path, mmap_mode='r', allow_pickle=False)
            arrays[name] = array.view(_dtypes(folder).get(name, array.dtype))
        except (OSError, ValueError) as error:
            raise StageError(
                f'{path} cannot be read ({error}); move {folder} away and run its stage again'
            ) from error
    return arrays


class _RowWriter:
    """Writes rows to the unfinished arrays in the folder; only the first process writes.

    Attributes:
      done: number of rows so far.
    """

    def __init__(self, folder: Path, names: Sequence[str], count: int, done: int):
        self._folder, self._names, self._count, self.done = folder, names, count, done
        self._files: dict[str, BinaryIO] = {}
        if hosts.is_first() and 0 < done < count:
            self._files = {name: _open(_partial_path(folder, name), done) for name in names}

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Append the rows of a batch, without its padding."""
        rows = {name: np.asarray(rows[name]) for name in self._names}
        if hosts.is_first() and not self._files:
            self._folder.mkdir(parents=True, exist_ok=True)
            _check_disk(self._folder, self._count, rows)
            _save_dtypes(self._folder, rows)
            self._files = {n: _create(self._folder, n, self._count, rows[n]) for n in rows}
        size = min(len(rows[self._names[0]]), self._count - self.done)
        for name, file in self._files.items():
            array = np.ascontiguousarray(rows[name][:size])
            file.write(array.view(_file_dtype(array.dtype)).data)
        self.done += size

    def flush(self) -> None:
        """Write the rows so far to the disk, so that a killed run can continue from here."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        if hosts.is_first():
            write_json(self._folder / 'rows.json', self.done)

    def finish(self) -> None:
        """Rename the files of the complete arrays to their final names."""
        for file in self._files.values():
            file.close()
        if hosts.is_first():
            for name in self._names:
                if not _final_path(self._folder, name).exists():
                    rename(_partial_path(self._folder, name), _final_path(self._folder, name))
            (self._folder / 'rows.json').unlink()


def _rows_done(folder: Path, names: Sequence[str]) -> int:
    """Return the number of rows on the disk, or COMPLETE."""
    if all(_final_path(folder, name).exists() for name in names):
        return COMPLETE
    progress = folder / 'rows.json'
    return json.loads(progress.read_text('utf-8')) if progress.exists() else 0


def _final_path(folder: Path, name: str) -> Path:
    return folder / f'{name}.npy'


def _partial_path(folder: Path, name: str) -> Path:
    return folder / f'{name}.npy.part'


def _create(folder: Path, name: str, count: int, rows: np.ndarray) -> BinaryIO:
    """Create an unfinished array; return its file, at the place of the first row.

    The rows are written, not memory-mapped: a full disk is then an error and no SIGBUS. Reserving
    the space first would not do, because a file system that cannot reserve gets every block written
    (posix_fallocate on NFS), which takes hours for large arrays.
    """
    file = open(_partial_path(folder, name), 'w+b')
    header = {
        'descr': np.lib.format.dtype_to_descr(_file_dtype(rows.dtype)),
        'fortran_order': False,
        'shape': (count, *rows.shape[1:]),
    }
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _open(path: Path, done: int) -> BinaryIO:
    """Open an unfinished array; return its file, at the place after `done` rows."""
    file = open(path, 'r+b')
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    file.seek(done * math.prod(shape[1:]) * dtype.itemsize, os.SEEK_CUR)
    return file


def _check_disk(folder: Path, count: int, rows: Mapping[str, np.ndarray]) -> None:
    """Raise the error of a full disk if the arrays will not fit."""
    needed = sum(count * math.prod(x.shape[1:]) * x.dtype.itemsize for x in rows.values())
    if needed > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _file_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype with which a file holds numbers of `dtype`, which NumPy may not know."""
    is_numpy = dtype.isbuiltin == 1
    return dtype if is_numpy else np.dtype(f'uint{8 * dtype.itemsize}')


def _save_dtypes(folder: Path, rows: Mapping[str, np.ndarray]) -> None:
    """Write the dtypes that the files themselves cannot name."""
    dtypes = {n: x.dtype.name for n, x in rows.items() if _file_dtype(x.dtype) != x.dtype}
    if dtypes:
        write_json(folder / 'dtypes.json', dtypes)


def _dtypes(folder: Path) -> dict[str, np.dtype]:
    """Return the dtypes that `_save_dtypes` wrote; older folders have none."""
    path = folder / 'dtypes.json'
    names = json.loads(path.read_text('utf-8')) if path.exists() else {}
    return {name: jnp.dtype(dtype) for name, dtype in names.items()}
