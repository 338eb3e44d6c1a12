"""Changes to a video that leave its answers true: mirrored, louder or softer, begun elsewhere.

Mirrored, it exchanges left and right in its pictures and in its questions and answers. Louder or
softer as a whole, it stays as loud as before in comparison. Begun at another segment, and its
beginning put behind its end, it changes no answer but those on who comes in when
(vocabulary.ABOUT_ORDER).
"""

import dataclasses

import numpy as np

from amuse_jax.media.log_mel import FLOOR_DB
from amuse_jax.music_avqa import Question, fill

OPPOSITE = {'left': 'right', 'right': 'left', 'leftest': 'rightest', 'rightest': 'leftest'}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How much of an epoch is changed, and how far; 0: not at all.

    Attributes:
      mirror: share of videos that are mirrored.
      gain_db: most dB by which a video is louder or softer; all between are equally likely.
      time_shift: share of videos that are shifted in time, where no question asks about order.
    """

    mirror: float = 0.0
    gain_db: float = 0.0
    time_shift: float = 0.0


NONE = Augmentation()


def mirrored(question: Question) -> Question:
    """The question that has the same standing in the mirrored video: left and right are exchanged
    in its values, its text and its answer."""
    answer = OPPOSITE.get(question.answer, question.answer)
    values = tuple(OPPOSITE.get(value, value) for value in question.values)
    if values == question.values:
        return dataclasses.replace(question, answer=answer)
    text = fill(question.template, values)
    return dataclasses.replace(question, values=values, text=text, answer=answer)


def mirrored_boxes(boxes: np.ndarray) -> np.ndarray:
    """x0, y0, x1, y1 [..., 4] in [0, 1] of the picture, seen in a mirror."""
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    return np.stack([1 - x1, y0, 1 - x0, y1], axis=-1)


def mirrored_frames(frames: np.ndarray) -> np.ndarray:
    """[..., height, width, 3]."""
    return frames[..., ::-1, :]


def amplified(log_mel: np.ndarray, gain_db: float) -> np.ndarray:
    """The log-mel (dB) that the same sound gives when it is played `gain_db` louder.

      10 log10 max(10^(gain / 10) power, floor) = max(10 log10 power + gain, 10 log10 floor)

    is exact wherever the power lies above the floor. What lies at the floor stays there: it is
    silence, or so faint that the log-mel does not tell its power.
    """
    heard = np.maximum(log_mel.astype(np.float32) + np.float32(gain_db), FLOOR_DB)
    return np.where(log_mel > FLOOR_DB, heard, FLOOR_DB).astype(log_mel.dtype)


def shifted(array: np.ndarray, segment_mask: np.ndarray, by: int) -> np.ndarray:
    """[T, ...] with every existing segment `by` places later and the last ones in front.

    Args:
      array: what each segment has.
      segment_mask: [T] bool; what does not exist, as behind the end of a short video, stays.
      by: places among the existing segments.
    """
    places = np.flatnonzero(segment_mask)
    result = array.copy()
    result[places] = array[np.roll(places, by)]
    return result
