"""Shards of regions: write one per group of videos, and merge them into the stage's arrays.

This module imports PyTorch, so only processes of the rois stage may import it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.media import video
from amuse_jax.regions.finder import ARRAYS, Finder
from amuse_jax.system.files import write_atomically
from amuse_jax.system.processes import this_process


def write_regions(finder: Finder, root: Path, video_ids: Sequence[str], path: Path) -> None:
    """Write one shard: the arrays of its videos, and 'reasons'.

    A video's reason says why it could not be read; it is '' if the video was read.

    Raises:
      StageError: this process cannot see the folder of the videos.
    """
    if not music_avqa.videos_exist(root, finder.videos):
        raise StageError(
            f'{this_process()} does not see {root} with its videos; mount its disk under this '
            'path and run the same command again to continue'
        )
    found, reasons = [], []
    paths = [music_avqa.video_path(root, name, finder.videos) for name in video_ids]
    for result in finder.find_all(paths):
        is_error = isinstance(result, video.MediaError)
        found.append(finder.no_regions() if is_error else result)
        reasons.append(result.reason if is_error else '')
    arrays = {name: np.stack([regions[name] for regions in found]) for name in ARRAYS}
    np.savez(path, reasons=np.array(reasons), **arrays)


def merge(shard_paths: Sequence[Path], rows: Sequence[int], shard_size: int, folder: Path) -> None:
    """Merge the shards into `boxes.npy`, `classes.npy`, `scores.npy` and `features.npy`.

    Args:
      shard_paths: shards in order, as `write_regions` writes them.
      rows: for each of the N records, the index of its video over all shards.
      shard_size: videos per shard; the last one may have fewer.
      folder: the stage's folder.
    """
    records = sorted(range(len(rows)), key=rows.__getitem__)  # each shard is opened once per array
    for name in ARRAYS:
        with np.load(shard_paths[0], allow_pickle=False) as first:
            shape, dtype = (len(rows), *first[name].shape[1:]), first[name].dtype

        def write(beside: Path, name=name, shape=shape, dtype=dtype) -> None:
            merged = np.lib.format.open_memmap(beside, 'w+', dtype, shape)
            opened, array = -1, None
            for record in records:
                shard, row = divmod(rows[record], shard_size)
                if shard != opened:
                    with np.load(shard_paths[shard], allow_pickle=False) as file:
                        opened, array = shard, file[name]
                merged[record] = array[row]
            merged.flush()

        write_atomically(folder / f'{name}.npy', write)


def count(folder: Path, names: Sequence[str]) -> dict:
    """Count the records, segments and regions in the merged arrays.

    Args:
      folder: the stage's folder, where `merge` wrote the arrays.
      names: the detector's class names.

    Returns:
      'records', 'segments', 'regions', and 'regions_of_class' by the names of classes that occur.
    """
    classes = np.load(folder / 'classes.npy', allow_pickle=False)
    totals = np.bincount(classes[classes >= 0].ravel(), minlength=len(names))
    return {
        'records': int(classes.shape[0]),
        'segments': int(classes.shape[0] * classes.shape[1]),
        'regions': int(totals.sum()),
        'regions_of_class': {name: int(n) for name, n in zip(names, totals) if n},
    }


def unreadable(shard_paths: Sequence[Path], video_ids: Sequence[str]) -> dict[str, str]:
    """Return the reason for every video that could not be read.

    Args:
      shard_paths: shards in order.
      video_ids: the videos of all shards, in order.
    """
    reasons = []
    for path in shard_paths:
        with np.load(path, allow_pickle=False) as file:
            reasons += file['reasons'].tolist()
    return {video_id: reason for video_id, reason in zip(video_ids, reasons) if reason}
