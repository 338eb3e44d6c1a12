"""The work of the rois stage, done in a process of its own: get a detector, then find regions.

This module imports PyTorch, so only processes that stage.py spawns may import it.
"""

import contextlib
import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import filelock
from ml_collections import ConfigDict

from amuse_jax.regions import detector, detector_setup, shard_task, shards
from amuse_jax.regions.finder import ARRAYS
from amuse_jax.system import gpus, memory, shard_arrays
from amuse_jax.system.files import write_json
from amuse_jax.system.sharded import map_shards

_LOCK = 'detector.lock'
_ADVICE = (
    'end other programs on this device, or set a smaller --config.rois.detector.batch_size or '
    '--config.rois.detector.frames, and run the same command again'
)


def run(
    config: ConfigDict,
    folder: Path,
    root: Path,
    video_ids: Sequence[str],
    split_of: Mapping[str, str],
) -> None:
    """Write all files of the stage; continue where an earlier call was killed.

    Args:
      config: the whole config.
      folder: the stage's folder.
      root: the data set's folder.
      video_ids: videos of the N records, in order.
      split_of: the split of every video that has questions.

    Raises:
      PartDone: the shards that `data.part` names are written, and others may be missing.
      StageError: as `stage.run`.
    """
    videos_of_split = {
        split: sorted({v for v in video_ids if split_of.get(v) == split})
        for split in ('train', 'val')
    }
    detector_path = folder / detector_setup.DETECTOR_FILE
    # One of several jobs makes the detector, and the others wait for it.
    is_alone = not config.data.part
    with contextlib.nullcontext() if is_alone else filelock.FileLock(folder / _LOCK):
        if not detector_path.exists():
            # Otherwise the shards of an earlier detector would be reused.
            shutil.rmtree(folder / 'shards', ignore_errors=True)
            with memory.shortage_as_error('rois: the detector', _ADVICE):
                detector_setup.create(config, folder, root, videos_of_split['train'])
    unique_ids = sorted(set(video_ids))
    shard_paths = map_shards(
        functools.partial(shard_task.write_regions, config, detector_path, root),
        unique_ids,
        folder / 'shards',
        suffix='.npz',
        shard_size=config.data.shard_videos,
        workers=config.data.workers,
        description='rois',
        beam=config.data.beam,
        part=config.data.part,
        devices=gpus.visible(),
    )
    model = detector.load(detector_path)
    report = {'trained_on': detector_setup.trained_on(folder)}
    report |= detector_setup.evaluate(model, config, root, videos_of_split['val'])
    names = detector_setup.class_names(model)
    write_json(folder / 'classes.json', names)
    row_of = {video_id: row for row, video_id in enumerate(unique_ids)}
    rows = [row_of[video_id] for video_id in video_ids]
    shard_arrays.merge(ARRAYS, shard_paths, rows, config.data.shard_videos, folder)
    report |= shards.count(folder, names)
    report |= {'unreadable': shard_arrays.reasons_of(shard_paths, unique_ids)}
    write_json(folder / 'report.json', report)
    shutil.rmtree(folder / 'shards')
    (folder / _LOCK).unlink(missing_ok=True)
