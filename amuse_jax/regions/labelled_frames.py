"""Pictures with known boxes, to train and evaluate a detector on."""

import concurrent.futures
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.media import guarded, video
from amuse_jax.music_avqa import rows
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.regions import pictures

CLASSES = (*INSTRUMENTS, 'player')  # the classes of a detector that is trained here


@dataclass(frozen=True)
class LabelledFrames:
    """n pictures of one size with their boxes.

    Attributes:
      pictures: uint8 (n, H, W, 3) RGB; each picture is in the upper left corner, the rest is grey.
      boxes: n arrays (m, 4) float32, xyxy in pixels.
      classes: n arrays (m,) int64, the class of each box.
    """

    pictures: np.ndarray
    boxes: list[np.ndarray]
    classes: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.pictures)


def has_boxes(root: Path, video_ids: Sequence[str]) -> list[str]:
    """Return the videos whose boxes are known: `root` has a file `truth/<video_id>.json`."""
    return [video_id for video_id in video_ids if _truth(root, video_id).is_file()]


def read(
    root: Path,
    video_ids: Sequence[str],
    names: Sequence[str],
    *,
    frames: int,
    image_size: int,
    workers: int,
    limits: guarded.Limits,
    videos: str = '',
    description: str,
) -> LabelledFrames:
    """Decode up to `frames` evenly spaced pictures of each video, and read their boxes.

    Args:
      root: the data set's folder; `truth/ID.json` holds {"boxes": {"seconds": [...], "boxes":
        [[[x0, y0, x1, y1, name, ...], ...], ...]}} with corners in [0, 1] of the picture.
      video_ids: the videos to read.
      names: class names; boxes with other names are left out.
      frames: largest number of pictures per video; 0 for all that have boxes.
      image_size: the longer side in pixels.
      workers: number of processes that decode.
      limits: limits for reading one video.
      videos: folders of the videos, as in `data.videos`.
      description: name of the progress bar.

    Raises:
      StageError: a truth file does not have this form, or no picture could be read.
    """
    read_one = _Reader(root, videos, list(names), frames, image_size, limits)
    count = len(video_ids)
    try:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            found = pool.map(read_one, video_ids)
            parts = list(tqdm(found, total=count, desc=description, unit='video'))
    finally:
        guarded.close_readers()  # the detector is trained next, and needs the memory
    parts = [part for part in parts if part is not None and len(part)]
    if not parts:
        raise StageError(f'rois: none of the {count} videos in {root} could be read')
    height = max(part.pictures.shape[1] for part in parts)
    width = max(part.pictures.shape[2] for part in parts)
    return LabelledFrames(
        np.concatenate([pictures.pad(part.pictures, height, width) for part in parts]),
        [boxes for part in parts for boxes in part.boxes],
        [classes for part in parts for classes in part.classes],
    )


@dataclass(frozen=True)
class _Reader:
    root: Path
    videos: str
    names: list[str]
    frames: int
    image_size: int
    limits: guarded.Limits

    def __call__(self, video_id: str) -> LabelledFrames | None:
        """Read one video; return None if it cannot be read, which `prepare` has reported."""
        seconds, labels = self._labels(video_id)
        n = len(seconds)
        chosen = np.arange(n)
        if self.frames and n > self.frames:
            chosen = np.linspace(0, n - 1, self.frames).round().astype(int)
        path = music_avqa.video_path(self.root, video_id, self.videos)
        moments = [seconds[i] for i in chosen]
        try:
            found = pictures.read(self.limits, path, moments, self.image_size)
        except video.MediaError:
            return None
        height, width = found.content_shape
        scale = np.array([width, height] * 2, np.float32)
        decoded = [i for i, is_decoded in zip(chosen, found.mask) if is_decoded]
        return LabelledFrames(
            found.pictures[found.mask],
            [labels[i][0] * scale for i in decoded],
            [labels[i][1] for i in decoded],
        )

    def _labels(self, video_id: str) -> tuple[list[float], list[tuple[np.ndarray, np.ndarray]]]:
        path = _truth(self.root, video_id)
        try:
            known = json.loads(rows.read_file(path))['boxes']
            labels = [self._parse_boxes(boxes) for boxes in known['boxes']]
            if len(labels) != len(known['seconds']):
                raise ValueError(f'{len(known["seconds"])} seconds but boxes at {len(labels)}')
            seconds = [float(second) for second in known['seconds']]
            if not np.isfinite(seconds).all():
                raise ValueError(f'{seconds} seconds')
            return seconds, labels
        except (ValueError, KeyError, TypeError, IndexError, OSError, RecursionError) as error:
            raise StageError(
                f'{path}: {type(error).__name__}: {error}; expected "boxes" to hold '
                '"seconds" and "boxes" (x0, y0, x1, y1 in [0, 1] of the picture, name); '
                'correct the file or remove it from truth/'
            ) from error

    def _parse_boxes(self, boxes: list) -> tuple[np.ndarray, np.ndarray]:
        known = [box for box in boxes if box[4] in self.names]
        corners = np.array([box[:4] for box in known], np.float32).reshape(-1, 4)
        ordered = (corners[:, :2] <= corners[:, 2:]).all()
        if not ((corners >= 0) & (corners <= 1)).all() or not ordered:  # nor NaN; often pixels
            raise ValueError(f'the corners {corners.tolist()[:3]}')
        return corners, np.array([self.names.index(box[4]) for box in known], np.int64)


def _truth(root: Path, video_id: str) -> Path:
    return root / 'truth' / f'{video_id}.json'
