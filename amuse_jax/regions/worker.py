"""What the stage `rois` does in its own process: trains a detector, judges it, finds regions.

Imports PyTorch: only rois.py's spawned processes may import this module.
"""

import functools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict
from ultralytics.nn.tasks import DetectionModel

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.media import video
from amuse_jax.regions import detection, detector, detector_training, labelled_frames, pictures
from amuse_jax.regions.labelled_frames import LabelledFrames
from amuse_jax.system.files import write_atomically, write_json
from amuse_jax.system.processes import this_process
from amuse_jax.system.sharded import map_shards

ARRAYS = ('boxes', 'classes', 'scores', 'features')


@dataclass(frozen=True)
class Finder:
    """Finds the regions of a video, at the middle of each of its segments.

    Attributes:
      detector_path: a checkpoint that `detector.load` reads.
      segments: T.
      segment_seconds: length of a segment.
      image_size: of the detector's pictures, the longer side in pixels.
      regions: K.
      min_score: lowest score of a region.
      max_overlap: highest IoU with a better region of its class.
    """

    detector_path: Path
    segments: int
    segment_seconds: float
    image_size: int
    regions: int
    min_score: float
    max_overlap: float

    @classmethod
    def from_settings(cls, config: ConfigDict, detector_path: Path) -> 'Finder':
        return cls(
            detector_path,
            config.data.segments,
            config.data.segment_seconds,
            config.rois.image_size,
            config.rois.regions,
            config.rois.min_score,
            config.rois.max_overlap,
        )

    def find(self, path: Path) -> dict[str, np.ndarray]:
        """'boxes' (T, K, 4), 'classes' (T, K), 'scores' (T, K), 'features' (T, K, D).

        Raises:
          MediaError: the video cannot be read.
        """
        middles = [(index + 0.5) * self.segment_seconds for index in range(self.segments)]
        shown = pictures.read(path, middles, self.image_size, self.segment_seconds / 2)
        found = detection.find_regions(
            _loaded(self.detector_path),
            shown.pictures[shown.mask],
            shown.inside,
            regions=self.regions,
            min_score=self.min_score,
            max_overlap=self.max_overlap,
        )
        result = self.nothing()
        for name in ARRAYS:
            result[name][shown.mask] = getattr(found, name)
        return result

    def nothing(self) -> dict[str, np.ndarray]:
        """The arrays of a video in which there is nothing."""
        size = sum(detector.map_channels(_loaded(self.detector_path)))
        return vars(detection.Regions.none(self.segments, self.regions, size))


@functools.lru_cache(maxsize=1)
def _loaded(path: Path) -> DetectionModel:
    """The detector, once per process, ready to run beside those of other processes."""
    torch.set_num_threads(1)
    model = detector.load(path).fuse(verbose=False)
    return model.to(_device(), memory_format=torch.channels_last)


def _device() -> torch.device:
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def make(
    config: ConfigDict,
    folder: Path,
    root: Path,
    video_ids: Sequence[str],
    split_of: Mapping[str, str],
) -> None:
    """Fills the stage's folder, going on where an earlier call was killed.

    Args:
      config: the whole config.
      folder: the stage's.
      root: of the data set.
      video_ids: of the N records, in order.
      split_of: the split of every video that has questions.

    Raises:
      StageError: see `rois.run`.
    """
    of_split = {
        split: sorted({v for v in video_ids if split_of.get(v) == split})
        for split in ('train', 'val')
    }
    path = folder / 'detector.pt'
    if not path.exists():
        shutil.rmtree(folder / 'shards', ignore_errors=True)
        if config.rois.weights:
            _adopt(Path(config.rois.weights).expanduser(), path, config.rois.feature_size)
        else:
            _train(config, folder, root, of_split['train'])
    model = detector.load(path)
    trained = folder / 'training.json'
    report = {'trained_on': json.loads(trained.read_text()) if trained.exists() else 0}
    report |= _judge(model, config, root, of_split['val'])
    unique = sorted(set(video_ids))
    parts = map_shards(
        functools.partial(write_regions, Finder.from_settings(config, path), root),
        unique,
        folder / 'shards',
        suffix='.npz',
        shard_size=config.data.shard_videos,
        workers=config.data.workers,
        description='rois',
        beam=config.data.beam,
    )
    names = [model.names[index] for index in sorted(model.names)]
    write_json(folder / 'classes.json', names)
    rows = {video_id: row for row, video_id in enumerate(unique)}
    report |= _merge(parts, [rows[v] for v in video_ids], config.data.shard_videos, folder)
    report |= _count(folder, names) | {'unreadable': _unreadable(parts, unique)}
    write_json(folder / 'report.json', report)
    shutil.rmtree(folder / 'shards')


def _adopt(weights: Path, path: Path, feature_size: int) -> None:
    _check_size(detector.load(weights), feature_size)
    write_atomically(path, lambda beside: shutil.copyfile(weights, beside))


def _check_size(model: DetectionModel, feature_size: int) -> None:
    channels = detector.map_channels(model)
    if sum(channels) != feature_size:
        raise StageError(
            f'rois.feature_size is {feature_size}, but the three maps of this detector have '
            f'{" + ".join(map(str, channels))} channels; '
            f'set --config.rois.feature_size={sum(channels)}'
        )


def _train(config: ConfigDict, folder: Path, root: Path, video_ids: Sequence[str]) -> None:
    """Leaves detector.pt, and in training.json how many pictures it was trained on."""
    settings = config.rois.detector
    torch.set_num_threads(config.data.workers or os.cpu_count())
    torch.manual_seed(settings.seed)
    model = detector.build(list(labelled_frames.CLASSES), settings.width, settings.depth)
    _check_size(model, config.rois.feature_size)
    labelled = labelled_frames.has_boxes(root, video_ids)
    if not labelled:
        raise StageError(
            f'rois.weights is empty and the data set {root} has no boxes to train a detector on '
            '(truth/*.json for videos of the split train); set --config.rois.weights to the .pt '
            'file of a YOLOv8 detector'
        )
    frames = labelled_frames.read(
        root,
        labelled,
        labelled_frames.CLASSES,
        frames=settings.frames,
        image_size=config.rois.image_size,
        workers=config.data.workers or os.cpu_count(),
        description='rois: boxes',
    )
    state_file = folder / 'training.pt'
    schedule = detector_training.Schedule(
        settings.epochs, settings.batch_size, settings.learning_rate, settings.seed
    )
    model = detector_training.train(model, frames, schedule, state_file)
    write_json(folder / 'training.json', len(frames))
    detector.save(model, folder / 'detector.pt')
    state_file.unlink(missing_ok=True)


def _judge(model: DetectionModel, config: ConfigDict, root: Path, video_ids: Sequence[str]) -> dict:
    """mAP50 on videos that the detector was not trained on, where their boxes are known."""
    labelled = labelled_frames.has_boxes(root, video_ids)
    precisions = {}
    if labelled:
        names = [model.names[index] for index in sorted(model.names)]
        frames: LabelledFrames = labelled_frames.read(
            root,
            labelled,
            names,
            frames=config.rois.detector.frames,
            image_size=config.rois.image_size,
            workers=config.data.workers or os.cpu_count(),
            description='rois: mAP50',
        )
        if any(map(len, frames.classes)):
            precisions = detector.average_precision(
                model.to(_device()), frames.pictures, frames.boxes, frames.classes
            )
    mean = float(np.mean(list(precisions.values()))) if precisions else None
    return {'map50': mean, 'map50_of_class': precisions}


def write_regions(finder: Finder, root: Path, video_ids: Sequence[str], path: Path) -> None:
    """Writes one shard: the arrays of its videos, and why one could not be read (else '').

    Raises:
      StageError: this process sees no videos at all.
    """
    if not (root / 'videos').is_dir():
        raise StageError(
            f'{this_process()} does not see {root / "videos"}; mount its disk under this '
            'path and start the same command again to go on'
        )
    found, reasons = [], []
    for video_id in video_ids:
        try:
            found.append(finder.find(music_avqa.video_path(root, video_id)))
            reasons.append('')
        except video.MediaError as error:
            found.append(finder.nothing())
            reasons.append(error.reason)
    arrays = {name: np.stack([each[name] for each in found]) for name in ARRAYS}
    np.savez(path, reasons=np.array(reasons), **arrays)


def _merge(parts: Sequence[Path], rows: Sequence[int], size: int, folder: Path) -> dict:
    """Writes the (N, ...) arrays: record i has the regions of video `rows[i]`."""
    order = sorted(range(len(rows)), key=rows.__getitem__)  # opens each shard once
    for name in ARRAYS:
        with np.load(parts[0], allow_pickle=False) as first:
            shape, dtype = (len(rows), *first[name].shape[1:]), first[name].dtype

        def write(beside: Path, name=name, shape=shape, dtype=dtype) -> None:
            merged = np.lib.format.open_memmap(beside, 'w+', dtype, shape)
            opened, array = -1, None
            for record in order:
                shard, row = divmod(rows[record], size)
                if shard != opened:
                    with np.load(parts[shard], allow_pickle=False) as file:
                        opened, array = shard, file[name]
                merged[record] = array[row]
            merged.flush()

        write_atomically(folder / f'{name}.npy', write)
    return {'records': len(rows)}


def _count(folder: Path, names: Sequence[str]) -> dict:
    classes = np.load(folder / 'classes.npy', allow_pickle=False)
    found = np.bincount(classes[classes >= 0].ravel(), minlength=len(names))
    return {
        'segments': int(classes.shape[0] * classes.shape[1]),
        'regions': int(found.sum()),
        'regions_of_class': {name: int(n) for name, n in zip(names, found) if n},
    }


def _unreadable(parts: Sequence[Path], video_ids: Sequence[str]) -> dict[str, str]:
    reasons = []
    for part in parts:
        with np.load(part, allow_pickle=False) as file:
            reasons += file['reasons'].tolist()
    return {video_id: reason for video_id, reason in zip(video_ids, reasons) if reason}
