"""Pictures of a data set whose boxes are known, to train a detector on and to judge it with."""

import concurrent.futures
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from amuse_jax.errors import StageError
from amuse_jax.media import video
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.regions import pictures

CLASSES = (*INSTRUMENTS, 'player')  # of a detector that is trained here


@dataclass(frozen=True)
class LabelledFrames:
    """n pictures of one size with their boxes.

    Attributes:
      pictures: uint8 (n, H, W, 3) RGB; each picture in the upper left corner, grey around it.
      boxes: n arrays (m, 4) float32, xyxy in pixels.
      classes: n arrays (m,) int64.
    """

    pictures: np.ndarray
    boxes: list[np.ndarray]
    classes: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.pictures)


def has_boxes(root: Path, video_ids: Sequence[str]) -> list[str]:
    """Those of the videos whose boxes the data set at `root` knows (`truth/<video_id>.json`)."""
    return [video_id for video_id in video_ids if _truth(root, video_id).is_file()]


def read(
    root: Path,
    video_ids: Sequence[str],
    names: Sequence[str],
    *,
    frames: int,
    image_size: int,
    workers: int,
    description: str,
) -> LabelledFrames:
    """Decodes up to `frames` pictures of each video, spread over those whose boxes are known.

    Args:
      root: the data set; `truth/ID.json` holds {"boxes": {"seconds": [...], "boxes": [[[x0, y0,
        x1, y1, name, ...], ...], ...]}} with corners in [0, 1] of the picture.
      names: the classes; boxes of other names are left out.
      frames: at most so many pictures per video, 0: all that have boxes.
      image_size: the longer side in pixels.
      workers: threads that decode.

    Raises:
      StageError: a truth file is not of this form, or no picture could be read.
    """
    read_one = _Reader(root, list(names), frames, image_size)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        parts = list(
            tqdm(
                pool.map(read_one, video_ids), total=len(video_ids), desc=description, unit='video'
            )
        )
    parts = [part for part in parts if part is not None and len(part)]
    if not parts:
        raise StageError(f'rois: none of the {len(video_ids)} videos in {root} could be read')
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
    names: list[str]
    frames: int
    image_size: int

    def __call__(self, video_id: str) -> LabelledFrames | None:
        """None where the video cannot be read: `prepare` has told of it."""
        seconds, labels = self._labels(video_id)
        n = len(seconds)
        take = np.arange(n)
        if self.frames and n > self.frames:
            take = np.linspace(0, n - 1, self.frames).round().astype(int)
        path = self.root / 'videos' / f'{video_id}.mp4'
        try:
            found = pictures.read(path, [seconds[i] for i in take], self.image_size)
        except video.MediaError:
            return None
        scale = np.array([found.inside[1], found.inside[0]] * 2, np.float32)
        kept = [i for i, ok in zip(take, found.mask) if ok]
        return LabelledFrames(
            found.pictures[found.mask],
            [labels[i][0] * scale for i in kept],
            [labels[i][1] for i in kept],
        )

    def _labels(self, video_id: str) -> tuple[list[float], list[tuple[np.ndarray, np.ndarray]]]:
        path = _truth(self.root, video_id)
        try:
            known = json.loads(path.read_text())['boxes']
            labels = [self._of_picture(boxes) for boxes in known['boxes']]
            if len(labels) != len(known['seconds']):
                raise ValueError(f'{len(known["seconds"])} seconds but boxes at {len(labels)}')
            return [float(second) for second in known['seconds']], labels
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise StageError(
                f'{path}: {type(error).__name__}: {error}; expected "boxes" to hold '
                '"seconds" and "boxes" (x0, y0, x1, y1 in [0, 1] of the picture, name); '
                'mend the file or take it out of truth/'
            ) from error

    def _of_picture(self, boxes: list) -> tuple[np.ndarray, np.ndarray]:
        known = [box for box in boxes if box[4] in self.names]
        corners = np.array([box[:4] for box in known], np.float32).reshape(-1, 4)
        return corners, np.array([self.names.index(box[4]) for box in known], np.int64)


def _truth(root: Path, video_id: str) -> Path:
    return root / 'truth' / f'{video_id}.json'
