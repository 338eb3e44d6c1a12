"""Pictures of a video as input of a detector.

They keep the video's proportions, and their longer side has a given length.
"""

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
) -> Pictures:
    """Decode the pictures at the given times, upright and with the video's proportions.

    Args:
      limits: limits for reading the file, in a process of its own.
      path: the video.
      seconds: n times from the beginning of the file.
      image_size: the longer side in pixels.

    Raises:
      video.MediaError: as `video.read_frames` and `guarded.read`.
    """
    return _with_proportions(
        *guarded.read(limits, video.read_frames, path, list(seconds), image_size)
    )


def read_segments(
    limits: guarded.Limits, path: Path, segments: int, segment_seconds: float, image_size: int
) -> Pictures:
    """Decode the picture of each segment like `read`; they are those of the video's record.

    Args:
      limits, path, image_size: as for `read`.
      segments, segment_seconds: as for `video.read_segment_frames`.
    """
    return _with_proportions(
        *guarded.read(
            limits, video.read_segment_frames, path, segments, segment_seconds, image_size
        )
    )


def _with_proportions(squares: np.ndarray, mask: np.ndarray, shape: np.ndarray) -> Pictures:
    """Give square pictures (n, S, S, 3) the proportions of a video, the longer side S pixels.

    `shape` is the video's height and width.
    """
    image_size, (height, width) = squares.shape[1], shape
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
