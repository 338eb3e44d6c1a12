"""Pictures of a video as input of a detector.

They keep the video's proportions, and their longer side has a given length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from amuse_jax.media import container, video

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
    path: Path, seconds: Sequence[float], image_size: int, hold_seconds: float = 0.0
) -> Pictures:
    """Decode the pictures at the given times, upright and with the video's proportions.

    Args:
      path: the video.
      seconds: n times from the beginning of the file.
      image_size: the longer side in pixels.
      hold_seconds: how much longer than its own duration the last picture stays.

    Raises:
      video.MediaError: as `video.read_frames`.
    """
    squares, mask = video.read_frames(path, seconds, image_size, hold_seconds)
    height, width = display_shape(path)
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


def display_shape(path: Path) -> tuple[int, int]:
    """Return the height and width at which a player displays a video.

    They include the video's rotation and the aspect ratio of its pixels.

    Raises:
      video.MediaError: no picture can be decoded.
    """
    with container.open_stream(path, 'picture') as source:
        for packet in source.packets():
            for frame in source.decode(packet):
                pixel = source.stream.sample_aspect_ratio
                height, width = frame.height, round(frame.width * float(pixel or 1))
                return (width, height) if frame.rotation % 180 else (height, width)
    raise video.MediaError('no frame of its picture can be decoded')


def pad(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pad pictures (n, h, w, 3) with grey below and to the right, to `height` x `width`."""
    missing = (0, 0), (0, height - pictures.shape[1]), (0, width - pictures.shape[2]), (0, 0)
    return np.pad(pictures, missing, constant_values=GREY)


def _round_up(pixels: int) -> int:
    return -(-pixels // STRIDE) * STRIDE
