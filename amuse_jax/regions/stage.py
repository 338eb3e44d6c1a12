"""The stage `rois` (3.3): per video and segment the K best regions that a YOLOv8 detector finds.

PyTorch stays out of this process: the work is done in a spawned one (rois_process.py), which ends
before anything is trained in JAX.
"""

import concurrent.futures
import json
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.data.prepared import Prepared
from amuse_jax.system.processes import end_with_parent


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Trains a detector on the data set's boxes unless `rois.weights` is one, then finds regions.

    Writes, for N records, T segments, K regions and features of size D: `boxes.npy` (N, T, K, 4)
    float16 xyxy in [0, 1] of the picture, `classes.npy` (N, T, K) int16 (-1: no region),
    `scores.npy` (N, T, K) float16, `features.npy` (N, T, K, D) float16; `classes.json`, the
    detector's class names; `detector.pt`; and `report.json`. Segments beyond a video's end have no
    regions.

    Args:
      config: the whole config; `rois` and `data` are read.
      folder: the stage's own.
      inputs: 'prepare', and 'render' where the data set is a rendered one.

    Returns:
      What `report.json` holds: `trained_on` (pictures; 0: weights were given), `map50` over the
      videos of the split val and `map50_of_class` (None and empty where these have no boxes of the
      detector's classes), `records`, `segments`, `regions`, `regions_of_class`, `unreadable`
      (video: reason).

    Raises:
      StageError: weights that cannot be used, neither weights nor boxes, another
        `rois.feature_size` than the detector has.
    """
    report = folder / 'report.json'
    if not report.exists():  # written last
        root = music_avqa.data_root(config, inputs)
        prepared = Prepared(inputs['prepare'])
        video_ids = [video['video_id'] for video in prepared.videos]
        split_of = {video_ids[row['record']]: row['split'] for row in prepared.rows}
        in_own_process(_make, config, folder, root, video_ids, split_of)
    summary = json.loads(report.read_text())
    if summary['map50'] is not None:
        print(f'rois: mAP50 {summary["map50"]:.3f} on the videos of the split val')
    return summary


def of_video(config: ConfigDict, folder: Path, path: Path) -> dict[str, np.ndarray]:
    """The regions of one more video, found by the detector that the stage has left in `folder`.

    Returns:
      'boxes' (T, K, 4), 'classes' (T, K), 'scores' (T, K), 'features' (T, K, D), as the stage's.

    Raises:
      MediaError: the video cannot be read.
    """
    return in_own_process(_find, config, folder / 'detector.pt', path)


def class_names(folder: Path) -> list[str]:
    """Read the names of the detector's classes from the stage's folder."""
    return json.loads((folder / 'classes.json').read_text())


def in_own_process(work: Callable, *arguments):
    """Calls a module-level function in a new process, which ends with this one at the latest."""
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=end_with_parent
    ) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                'rois: the process that runs the detector died, most likely for want of memory; '
                'start the same command again to go on, with a smaller rois.image_size if it dies '
                'again'
            ) from error


def _make(config: ConfigDict, folder: Path, root: Path, video_ids: list, split_of: dict) -> None:
    from amuse_jax.regions import worker  # PyTorch

    worker.make(config, folder, root, video_ids, split_of)


def _find(config: ConfigDict, detector_path: Path, path: Path) -> dict[str, np.ndarray]:
    from amuse_jax.regions import worker  # PyTorch

    return worker.Finder.from_settings(config, detector_path).find(path)
