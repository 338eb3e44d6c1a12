"""The rois stage: the K best regions that a YOLOv8 detector finds in every segment (3.3).

This process does not import PyTorch. A spawned process (worker.py) does the work, and it ends
before training in JAX begins.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.data.prepared import Prepared
from amuse_jax.regions import environment, process
from amuse_jax.system import contents, paths


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Find the regions of all records; train a detector first if `rois.weights` is empty.

    The detector learns from the data set's boxes. The stage writes, for N records, T segments, K
    regions and features of size D: `boxes.npy` (N, T, K, 4) float16, xyxy in [0, 1] of the picture;
    `classes.npy` (N, T, K) int16, -1 for no region; `scores.npy` (N, T, K) float16; `features.npy`
    (N, T, K, D) float16; `classes.json`, the detector's class names; `detector.pt`; and
    `report.json`. Segments after a video's end have no regions.

    Args:
      config: the whole config; `rois` and `data` are read.
      folder: the stage's folder.
      inputs: folders of 'prepare' and, if the data set is rendered, 'render'.

    Returns:
      The contents of `report.json`: `trained_on`, the number of training pictures (0 if weights
      were given); `map50` and `map50_of_class` over the videos of the val split (None and {} if
      these have no boxes of the detector's classes); `records`, `segments`, `regions`,
      `regions_of_class`; and `unreadable`, the reason by video.

    Raises:
      PartDone: the shards that `data.part` names are written, and others may be missing.
      StageError: the weights cannot be used, there are neither weights nor boxes, or the detector's
        features do not have the size `rois.feature_size`.
    """
    report = folder / 'report.json'
    if not report.exists():  # written last
        root = music_avqa.data_root(config, inputs)
        prepared = Prepared(inputs['prepare'])
        video_ids = [video['video_id'] for video in prepared.videos]
        split_of = splits_of_videos(prepared)
        with process.create() as worker:
            worker.call(_run_worker, config, folder, root, video_ids, split_of)
    summary = json.loads(report.read_text('utf-8'))
    if summary['map50'] is not None:
        print(f'rois: mAP50 {summary["map50"]:.3f} on the videos of the val split')
    return summary


def check_weights(config: ConfigDict) -> None:
    """Make sure that the stage can use the detector in `rois.weights`, before hours of work.

    Raises:
      StageError: the file cannot be used, or the detector's features do not have the size
        `rois.feature_size`.
    """
    path = paths.from_user(config.rois.weights, 'config.rois.weights')
    _check_weights(path, contents.stat(path), config.rois.feature_size)


@functools.cache  # the configs of all ablations have the same detector
def _check_weights(path: Path, size_and_time: tuple[int, int] | None, feature_size: int) -> None:
    with process.create() as worker:
        worker.call(_load_weights, path, feature_size)


def truth_files(config: ConfigDict) -> str:
    """Return the pattern of the files in truth/ that the detector learns from; '' if none."""
    return '' if config.rois.weights else '*.json'


def splits_of_videos(prepared: Prepared) -> dict[str, str]:
    """Return the split of every video that has questions.

    A video with train questions counts as a train video, whatever other questions it has, and one
    with val questions comes before test. So the detector learns from train videos only, and its
    mAP50 is measured on videos that it has not seen.
    """
    splits: dict[str, str] = {}
    for split in ('train', 'val', 'test', music_avqa.REPHRASED):
        for record in prepared.records_of(split):
            splits.setdefault(prepared.videos[record]['video_id'], split)
    return splits


def class_names(folder: Path) -> list[str]:
    """Read the names of the detector's classes from the stage's folder, in index order."""
    return json.loads((folder / 'classes.json').read_text('utf-8'))


def _load_weights(path: Path, feature_size: int) -> None:
    environment.set_up()
    from amuse_jax.regions import detector_setup  # imports PyTorch

    detector_setup.load_weights(path, feature_size)


def _run_worker(
    config: ConfigDict, folder: Path, root: Path, video_ids: list, split_of: dict
) -> None:
    environment.set_up()
    from amuse_jax.regions import worker  # imports PyTorch

    worker.run(config, folder, root, video_ids, split_of)
