"""Pictures of a video as a detector takes them: undistorted, the longer side of a given length."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from amuse_jax.media import container, video

STRIDE = 32  # of YOLOv8's coarsest map; the sides of its input are multiples of it
GREY = 114  # around the picture, as ultralytics has it


@dataclass(frozen=True)
class Pictures:
    """n pictures of one video.

    Attributes:
      pictures: uint8 (n, H, W, 3) RGB; H and W multiples of STRIDE.
      inside: height and width of the part that the picture fills, from the upper left corner; the
        rest is grey.
      mask: bool (n,), False where the video shows nothing at that time.
    """

    pictures: np.ndarray
    inside: tuple[int, int]
    mask: np.ndarray


def read(
    path: Path, seconds: Sequence[float], image_size: int, hold_seconds: float = 0.0
) -> Pictures:
    """The pictures shown at some moments, upright and not distorted.

    Args:
      image_size: pixels of the longer side.
      hold_seconds: how long the last picture stays beyond its own duration.

    Raises:
      video.MediaError: as `video.read_frames`.
    """
    squares, mask = video.read_frames(path, seconds, image_size, hold_seconds)
    height, width = shown_shape(path)
    scale = image_size / max(height, width)
    inside = max(1, round(height * scale)), max(1, round(width * scale))
    if inside != squares.shape[1:3]:
        squares = np.stack(
            [cv2.resize(each, inside[::-1], interpolation=cv2.INTER_AREA) for each in squares]
        )
    return Pictures(pad(squares, *map(_whole, inside)), inside, mask)


def shown_shape(path: Path) -> tuple[int, int]:
    """Height and width of a video as a player shows it: with its rotation and its pixels' shape.

    Raises:
      video.MediaError: no picture of it can be decoded.
    """
    with container.opened(path, 'picture') as source:
        for packet in source.packets():
            for frame in source.decode(packet):
                pixel = source.stream.sample_aspect_ratio
                height, width = frame.height, round(frame.width * float(pixel or 1))
                return (width, height) if frame.rotation % 180 else (height, width)
    raise video.MediaError('no frame of its picture can be decoded')


def pad(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """Grey below and to the right, up to `height` x `width`."""
    missing = (0, 0), (0, height - pictures.shape[1]), (0, width - pictures.shape[2]), (0, 0)
    return np.pad(pictures, missing, constant_values=GREY)


def _whole(pixels: int) -> int:
    return -(-pixels // STRIDE) * STRIDE
