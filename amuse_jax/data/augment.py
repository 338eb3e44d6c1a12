"""Augmentations that leave a video's answers true: mirroring, a gain, a shift in time.

Mirroring exchanges left and right in the frames, the questions and the answers. A gain makes the
whole sound louder or softer, so every comparison of loudness keeps its answer. A shift in time
starts the video at a later segment and moves the segments before it to the end. It can change only
the answers to questions about the order of events (vocabulary.ABOUT_ORDER).
"""

import dataclasses

import numpy as np

from amuse_jax.media.log_mel import FLOOR_DB
from amuse_jax.music_avqa import Question, fill

OPPOSITE = {'left': 'right', 'right': 'left', 'leftest': 'rightest', 'rightest': 'leftest'}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How often and how strongly the videos of an epoch are changed; 0 switches a change off.

    Attributes:
      mirror: share of the videos that are mirrored.
      gain_db: largest gain or attenuation in dB; gains are drawn uniformly from both sides of 0.
      time_shift: share of the videos that are shifted in time, unless a question asks about order.
    """

    mirror: float = 0.0
    gain_db: float = 0.0
    time_shift: float = 0.0


NONE = Augmentation()


def mirror_question(question: Question) -> Question:
    """Return the question to ask about the mirrored video.

    Left and right are exchanged in its values, its text and its answer.
    """
    answer = OPPOSITE.get(question.answer, question.answer)
    values = tuple(OPPOSITE.get(value, value) for value in question.values)
    if values == question.values:
        return dataclasses.replace(question, answer=answer)
    text = fill(question.template, values)
    return dataclasses.replace(question, values=values, text=text, answer=answer)


def mirror_boxes(boxes: np.ndarray) -> np.ndarray:
    """Mirror boxes left to right.

    Args:
      boxes: [..., 4] x0, y0, x1, y1 as fractions of the picture's width and height.
    """
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    return np.stack([1 - x1, y0, 1 - x0, y1], axis=-1)


def mirror_frames(frames: np.ndarray) -> np.ndarray:
    """Mirror frames [..., height, width, 3] left to right."""
    return frames[..., ::-1, :]


def apply_gain(log_mel: np.ndarray, gain_db: float) -> np.ndarray:
    """Return the log-mel (dB) of the same sound played `gain_db` louder.

      10 log10 max(10^(gain / 10) power, floor) = max(10 log10 power + gain, 10 log10 floor)

    This is exact wherever the power lies above the floor. A value at the floor stays there: it is
    silence, or a sound so faint that the log-mel does not hold its power.
    """
    amplified = np.maximum(log_mel.astype(np.float32) + np.float32(gain_db), FLOOR_DB)
    return np.where(log_mel > FLOOR_DB, amplified, FLOOR_DB).astype(log_mel.dtype)


def shift_segments(array: np.ndarray, segment_mask: np.ndarray, offset: int) -> np.ndarray:
    """Move every existing segment `offset` places later, and the last ones to the beginning.

    Args:
      array: [T, ...] one entry per segment.
      segment_mask: [T] bool, True where the segment exists. The other segments, such as those after
        the end of a short video, keep their places.
      offset: number of places, counted among the existing segments.

    Returns:
      A shifted copy of `array`.
    """
    places = np.flatnonzero(segment_mask)
    result = array.copy()
    result[places] = array[np.roll(places, offset)]
    return result
