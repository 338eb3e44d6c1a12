"""Pictures of a video as input of a detector.

They keep the video's proportions, and their longer side has a given length.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from amuse_jax.media import guarded, video

STRIDE = 32  # stride of YOLOv8's coarsest map; the sides of its input are multiples of it
GREY = 114  # value of the padding, as in ultralytics


@dataclass(frozen=True)
class Pictures:
    """n pictures of one video.

    Attributes:
      pictures: uint8 (n, H, W, 3) RGB; H and W multiples of STRIDE.
      content_shape: height and width of the part that the picture fills, from the upper left
        corner; the rest is grey.
      mask: bool (n,), False if the video has no picture at that time.
    """

    pictures: np.ndarray
    content_shape: tuple[int, int]
    mask: np.ndarray


def read(
    limits: guarded.Limits,
    path: Path,
    seconds: Sequence[float],
    image_size: int,
    hold_seconds: float = 0.0,
    *,
    until_sound_ends: bool = False,
) -> Pictures:
    """Decode the pictures at the given times, upright and with the video's proportions.

    Args:
      limits: limits for reading the file, in a process of its own.
      path: the video.
      seconds: n times from the beginning of the file.
      image_size: the longer side in pixels.
      hold_seconds, until_sound_ends: how long the last picture stays; see
        `video.read_frames_and_shape`.

    Raises:
      video.MediaError: as `video.read_frames_and_shape` and `guarded.read`.
    """
    read_frames = functools.partial(video.read_frames_and_shape, until_sound_ends=until_sound_ends)
    squares, mask, (height, width) = guarded.read(
        limits, read_frames, path, list(seconds), image_size, hold_seconds
    )
    scale = image_size / max(height, width)
    content_shape = max(1, round(height * scale)), max(1, round(width * scale))
    if content_shape != squares.shape[1:3]:
        squares = np.stack(
            [
                cv2.resize(each, content_shape[::-1], interpolation=cv2.INTER_AREA)
                for each in squares
            ]
        )
    return Pictures(pad(squares, *map(_round_up, content_shape)), content_shape, mask)


def pad(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pad pictures (n, h, w, 3) with grey below and to the right, to `height` x `width`."""
    missing = (0, 0), (0, height - pictures.shape[1]), (0, width - pictures.shape[2]), (0, 0)
    return np.pad(pictures, missing, constant_values=GREY)


def _round_up(pixels: int) -> int:
    return -(-pixels // STRIDE) * STRIDE
