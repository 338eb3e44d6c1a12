"""Shards of regions: write one per group of videos, and count what the merged arrays hold.

This module imports PyTorch, so only processes of the rois stage may import it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.media import video
from amuse_jax.regions.finder import ARRAYS, Finder
from amuse_jax.system import shard_arrays
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
    shard_arrays.write(path, arrays, reasons)


def count(folder: Path, names: Sequence[str]) -> dict:
    """Count the records, segments and regions in the merged arrays.

    Args:
      folder: the stage's folder, with the merged arrays.
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
