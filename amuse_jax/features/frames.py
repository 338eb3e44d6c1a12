"""Reads pictures at given moments, as the published loaders prepare them for a network.

These extract one jpg per second with ffmpeg and resize it with Pillow. Here no jpg is written, so
the picture has no artefacts of one. ffmpeg's filter `fps=1` shows a second by the last picture of
its first half, which is the picture at its middle.
"""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

from amuse_jax.media import video

SIZE = 224  # pixels, of a picture for ResNet-18 and CLIP
STRETCH, CROP = 'stretch', 'crop'


def middles(seconds: Sequence[int]) -> list[float]:
    """Return the middle of each second, given by its number from 0."""
    return [second + 0.5 for second in seconds]


def read(path: Path, moments: Sequence[float], fit: str) -> tuple[np.ndarray, np.ndarray]:
    """Read pictures of a video; call this through `media.guarded`.

    The last picture is held for half a second, and as long as the file's sound goes on, as in the
    records of the stage `prepare`.

    Args:
      path: the video.
      moments: n seconds after the beginning of the file.
      fit: STRETCH for `stretched`, CROP for `cropped`.

    Returns:
      Pictures (n, SIZE, SIZE, 3) uint8 RGB, and a mask (n,) bool: False where the video shows
      nothing, so that the picture is black.

    Raises:
      MediaError: see `video.read_frames`.
    """
    to_square = {STRETCH: stretched, CROP: cropped}[fit]
    pictures, mask, _ = video.read_frames(
        path, moments, SIZE, 0.5, until_sound_ends=True, to_square=to_square
    )
    return pictures, mask


def stretched(frame: av.VideoFrame, size: int) -> np.ndarray:
    """Resize a frame to a square without keeping its proportions: torchvision's Resize((s, s)).

    Returns:
      (size, size, 3) uint8 RGB.
    """
    return np.asarray(_image(frame).resize((size, size), Image.Resampling.BILINEAR))


def cropped(frame: av.VideoFrame, size: int) -> np.ndarray:
    """Resize a frame's shorter side and cut out its middle, as CLIP does (Radford et al. 2021).

    This is torchvision's Resize(s, BICUBIC) and CenterCrop(s).

    Returns:
      (size, size, 3) uint8 RGB.
    """
    image = _image(frame)
    shorter = min(image.size)
    width, height = (int(size * side / shorter) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def _image(frame: av.VideoFrame) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(video.upright(frame)))
