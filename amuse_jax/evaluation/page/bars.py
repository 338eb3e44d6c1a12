"""The bars of an example page: probabilities of the answers and importance of the streams."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amuse_jax.evaluation.page import canvas
from amuse_jax.music_avqa import vocabulary

LINE, LABELS, TITLE = 24, 128, 26  # pixels
MOST_ANSWERS = 5


def best_answers(probabilities: np.ndarray, answer: str | None) -> list[str]:
    """Return the most probable answers, the best first, and after them the true one if it is known.

    Args:
      probabilities: (42,) over vocabulary.ANSWERS.
      answer: the true answer; None if it is not known.
    """
    best = np.argsort(-np.asarray(probabilities), kind='stable')[:MOST_ANSWERS]
    names = [vocabulary.ANSWERS[index] for index in best]
    return names if answer is None or answer in names else [*names, answer]


def answers_height(probabilities: np.ndarray, answer: str | None) -> float:
    """Return the pixels that `draw_answers` needs."""
    return TITLE + LINE * len(best_answers(probabilities, answer))


def importance_height(importance: Mapping[str, float]) -> float:
    """Return the pixels that `draw_importance` needs."""
    return TITLE + LINE * len(importance)


def draw_answers(
    figure: Figure, box: canvas.Box, probabilities: np.ndarray, answer: str | None
) -> None:
    """Draw the probabilities of the best answers; the true answer is green, if it is known.

    Args:
      figure: the figure.
      box: where to draw; its height is `answers_height`.
      probabilities: (42,) over vocabulary.ANSWERS.
      answer: the true answer; None if it is not known.
    """
    names = best_answers(probabilities, answer)
    colours = {name: canvas.OTHER for name in names}
    colours[names[0]] = canvas.STREAM_COLOURS['visual'] if answer is None else canvas.WRONG
    if answer is not None:
        colours[answer] = canvas.RIGHT
    values = {name: float(probabilities[vocabulary.ANSWERS.index(name)]) for name in names}
    marks = {} if answer is None else {answer: 'true answer'}
    axes = _bars(figure, box, 'Probable answers', values, colours)
    for line, name in enumerate(names):
        mark = f', {marks[name]}' if name in marks else ''
        _write_value(axes, line, values[name], canvas.percent(values[name]) + mark)


def draw_importance(figure: Figure, box: canvas.Box, importance: Mapping[str, float]) -> None:
    """Draw the importance score of each stream.

    Args:
      figure: the figure.
      box: where to draw; its height is `importance_height`.
      importance: importance score of each stream; they sum to one.
    """
    axes = _bars(figure, box, 'Importance of each stream', importance, canvas.STREAM_COLOURS)
    for line, value in enumerate(importance.values()):
        _write_value(axes, line, value, canvas.percent(value))


def _bars(
    figure: Figure,
    box: canvas.Box,
    title: str,
    values: Mapping[str, float],
    colours: Mapping[str, str],
) -> Axes:
    """Draw a bar for each value, the first one at the top."""
    canvas.add_text(figure, box.left, box.top, title, weight='bold')
    area = canvas.Box(box.left + LABELS, box.top + TITLE, box.width - LABELS, box.height - TITLE)
    axes = canvas.add_axes(figure, area)
    lines = range(len(values))
    axes.barh(lines, 1, 0.6, color='#eef1f4')
    axes.barh(lines, list(values.values()), 0.6, color=[colours[name] for name in values])
    axes.set_yticks(lines, [name.replace('_', ' ') for name in values])
    axes.set_xticks([])
    axes.set_xlim(0, 1)
    axes.set_ylim(len(values) - 0.5, -0.5)
    return axes


def _write_value(axes: Axes, line: int, value: float, text: str) -> None:
    """Write the value beside its bar, or inside a long one."""
    is_inside = value > 0.5
    axes.text(
        value + (-0.012 if is_inside else 0.012), line, text,
        ha='right' if is_inside else 'left', va='center_baseline', fontsize=10.5,
        color='w' if is_inside else canvas.INK,
    )  # fmt: skip
