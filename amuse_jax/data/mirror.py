"""Mirroring a performance left to right so that every answer stays true."""

import dataclasses

import numpy as np

from amuse_jax.data.music_avqa import Question, fill

OPPOSITE = {'left': 'right', 'right': 'left', 'leftest': 'rightest', 'rightest': 'leftest'}


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
