"""The detector of a run: the user's own weights, or one trained on the data set's boxes.

This module imports PyTorch, so only processes of the rois stage may import it.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from ultralytics.nn.tasks import DetectionModel

from amuse_jax.errors import StageError
from amuse_jax.media import guarded
from amuse_jax.regions import detector, detector_training, labelled_frames
from amuse_jax.regions.labelled_frames import LabelledFrames
from amuse_jax.system import cpus, paths
from amuse_jax.system.files import write_atomically, write_json

DETECTOR_FILE = 'detector.pt'
_TRAINED_ON_FILE = 'training.json'  # number of training pictures; absent if weights were given
_STATE_FILE = 'training.pt'


def load_weights(path: Path, feature_size: int) -> DetectionModel:
    """Load a user's detector.

    Raises:
      StageError: the file cannot be used, or the detector's features have another size.
    """
    model = detector.load(path)
    _check_feature_size(model, feature_size)
    return model


def create(config: ConfigDict, folder: Path, root: Path, video_ids: Sequence[str]) -> None:
    """Write `detector.pt`: a copy of `rois.weights` if it is set, else a detector trained here.

    Args:
      config: the whole config.
      folder: the stage's folder.
      root: the data set's folder.
      video_ids: videos of the train split.

    Raises:
      StageError: the weights cannot be used, there are neither weights nor boxes, or the detector's
        features do not have the size `rois.feature_size`.
    """
    if config.rois.weights:
        weights = paths.from_user(config.rois.weights, 'config.rois.weights')
        load_weights(weights, config.rois.feature_size)
        write_atomically(folder / DETECTOR_FILE, lambda beside: shutil.copyfile(weights, beside))
    else:
        _train(config, folder, root, video_ids)


def trained_on(folder: Path) -> int:
    """Return how many pictures the detector was trained on; 0 if the user gave its weights."""
    path = folder / _TRAINED_ON_FILE
    return json.loads(path.read_text('utf-8')) if path.exists() else 0


def class_names(model: DetectionModel) -> list[str]:
    """Return the names of the detector's classes, in the order of their indices."""
    return [model.names[index] for index in sorted(model.names)]


def evaluate(
    model: DetectionModel, config: ConfigDict, root: Path, video_ids: Sequence[str]
) -> dict:
    """Compute the mAP50 on videos that the detector was not trained on, if their boxes are known.

    Returns:
      'map50' and 'map50_of_class'; None and {} if no video has boxes of the detector's classes.
    """
    labelled = labelled_frames.has_boxes(root, video_ids)
    precisions = {}
    if labelled:
        frames = _read_frames(config, root, labelled, class_names(model), 'rois: mAP50')
        if any(map(len, frames.classes)):
            precisions = detector.average_precision(
                model.to(detector.choose_device()), frames.pictures, frames.boxes, frames.classes
            )
    mean = float(np.mean(list(precisions.values()))) if precisions else None
    return {'map50': mean, 'map50_of_class': precisions}


def _check_feature_size(model: DetectionModel, feature_size: int) -> None:
    channels = detector.map_channels(model)
    if sum(channels) != feature_size:
        raise StageError(
            f'rois.feature_size is {feature_size}, but the three maps of this detector have '
            f'{" + ".join(map(str, channels))} channels; '
            f'set --config.rois.feature_size={sum(channels)}'
        )


def _train(config: ConfigDict, folder: Path, root: Path, video_ids: Sequence[str]) -> None:
    """Train a detector; write it, and the number of its training pictures, to `folder`."""
    settings = config.rois.detector
    torch.set_num_threads(config.data.workers or cpus.usable())
    torch.manual_seed(settings.seed)
    model = detector.build(list(labelled_frames.CLASSES), settings.width, settings.depth)
    _check_feature_size(model, config.rois.feature_size)
    labelled = labelled_frames.has_boxes(root, video_ids)
    if not labelled:
        raise StageError(
            f'rois.weights is empty and the data set {root} has no boxes to train a detector on '
            '(truth/*.json for videos of the train split); set --config.rois.weights to the .pt '
            'file of a YOLOv8 detector'
        )
    frames = _read_frames(config, root, labelled, labelled_frames.CLASSES, 'rois: boxes')
    state_file = folder / _STATE_FILE
    schedule = detector_training.Schedule(
        settings.epochs, settings.batch_size, settings.learning_rate, settings.seed
    )
    model = detector_training.train(model, frames, schedule, state_file)
    write_json(folder / _TRAINED_ON_FILE, len(frames))
    detector.save(model, folder / DETECTOR_FILE)
    state_file.unlink(missing_ok=True)


def _read_frames(
    config: ConfigDict,
    root: Path,
    video_ids: Sequence[str],
    names: Sequence[str],
    description: str,
) -> LabelledFrames:
    return labelled_frames.read(
        root,
        video_ids,
        names,
        frames=config.rois.detector.frames,
        image_size=config.rois.image_size,
        workers=config.data.workers or cpus.usable(),
        limits=guarded.Limits.from_settings(config.data),
        videos=config.data.videos,
        description=description,
    )
