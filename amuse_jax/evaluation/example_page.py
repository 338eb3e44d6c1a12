"""Example page in the style of Fig. 4: one question with its video, sounds and answer.

`draw` writes the whole page. `video_figure`, `answers_figure` and `importance_figure` return its
parts, for a page that lays them out itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure

from amuse_jax.evaluation.page import bars, canvas, frames, timeline
from amuse_jax.evaluation.page.evidence import Evidence, attention_over_time
from amuse_jax.music_avqa import vocabulary

WIDTH, MARGIN = 1280, 24  # pixels of the page
BARS_WIDTH = 400
QUESTION_LINE, ANSWER_LINE = 32, 34


def draw(
    evidence: Evidence,
    question: str,
    probabilities: np.ndarray,
    importance: Mapping[str, float],
    answer: str | None,
    file: Path | BinaryIO,
) -> None:
    """Write the page as PNG.

    Args:
      evidence: frames, regions and labels of the video, and where the answer looked.
      question: the text of the question.
      probabilities: (42,) over vocabulary.ANSWERS.
      importance: importance score of each stream; they sum to one.
      answer: the true answer; None if it is not known.
      file: the PNG to write: a path, or a file that is open for writing bytes.
    """
    lines = canvas.wrap(question, 76, 3)
    head = MARGIN / 2 + len(lines) * QUESTION_LINE + ANSWER_LINE
    grid = _grid(evidence)
    answers = bars.answers_height(probabilities, answer)
    column = answers + MARGIN + bars.importance_height(importance)
    lower = max(column, timeline.least_height(evidence))
    below = head + grid.total_height + MARGIN
    figure = canvas.new_figure(WIDTH, below + lower + MARGIN)

    _head(figure, lines, probabilities, answer)
    size = (WIDTH - 3 * MARGIN - BARS_WIDTH, lower)
    _video(figure, head, grid, evidence, importance, size)
    left = WIDTH - MARGIN - BARS_WIDTH
    box = canvas.Box(left, below, BARS_WIDTH, answers)
    bars.draw_answers(figure, box, probabilities, answer)
    box = canvas.Box(left, below + answers + MARGIN, BARS_WIDTH, column - answers - MARGIN)
    bars.draw_importance(figure, box, importance)
    canvas.save(figure, file)


def video_figure(evidence: Evidence, importance: Mapping[str, float]) -> Figure:
    """Return the frames with their regions and, below them, the timeline.

    Args:
      evidence: frames, regions and labels of the video, and where the answer looked.
      importance: importance score of each stream, which weights its attention over time.
    """
    grid = _grid(evidence)
    box = _timeline_box(grid, evidence)
    figure = canvas.new_figure(WIDTH, box.top + box.height + MARGIN)
    _video(figure, MARGIN, grid, evidence, importance, (box.width, box.height))
    return figure


def segment_boxes(evidence: Evidence) -> list[tuple[canvas.Box, canvas.Box]]:
    """Return where `video_figure` shows each segment: its frame, and its part of the timeline."""
    grid = _grid(evidence)
    frame_area = canvas.Box(MARGIN, MARGIN, WIDTH - 2 * MARGIN, grid.total_height)
    timeline_area = _timeline_box(grid, evidence)
    return [
        (
            frames.frame_box(frame_area, grid, index),
            timeline.segment_box(timeline_area, evidence, index),
        )
        for index in range(evidence.segments)
    ]


def answers_figure(probabilities: np.ndarray, answer: str | None) -> Figure:
    """Return the bars of the most probable answers; see `draw` for the arguments."""
    height = bars.answers_height(probabilities, answer)
    figure = canvas.new_figure(BARS_WIDTH + 2 * MARGIN, height + 2 * MARGIN)
    box = canvas.Box(MARGIN, MARGIN, BARS_WIDTH, height)
    bars.draw_answers(figure, box, probabilities, answer)
    return figure


def importance_figure(importance: Mapping[str, float]) -> Figure:
    """Return the bars of the streams' importance; see `draw` for the argument."""
    height = bars.importance_height(importance)
    figure = canvas.new_figure(BARS_WIDTH + 2 * MARGIN, height + 2 * MARGIN)
    bars.draw_importance(figure, canvas.Box(MARGIN, MARGIN, BARS_WIDTH, height), importance)
    return figure


def _grid(evidence: Evidence) -> frames.Grid:
    return frames.arrange(evidence.segments, evidence.shape, WIDTH - 2 * MARGIN)


def _timeline_box(grid: frames.Grid, evidence: Evidence) -> canvas.Box:
    """Return where the timeline stands in `video_figure`."""
    top = MARGIN + grid.total_height + MARGIN
    return canvas.Box(MARGIN, top, WIDTH - 2 * MARGIN, timeline.least_height(evidence))


def _head(figure: Figure, lines: list[str], probabilities: np.ndarray, answer: str | None) -> None:
    """Write the question and, below it, the answer."""
    for index, line in enumerate(lines):
        top = MARGIN / 2 + index * QUESTION_LINE
        canvas.add_text(figure, MARGIN, top, line, fontsize=17, weight='bold')
    best = int(np.argmax(probabilities))
    name = vocabulary.ANSWERS[best]
    text = f'Answer: {name.replace("_", " ")} ({canvas.percent(probabilities[best])})'
    colour = canvas.INK
    if answer is not None:
        is_right = name == answer
        colour = canvas.RIGHT if is_right else canvas.WRONG
        text += (
            ', correct' if is_right else f', wrong: the true answer is {answer.replace("_", " ")}'
        )
    top = MARGIN / 2 + len(lines) * QUESTION_LINE
    canvas.add_text(figure, MARGIN, top, text, fontsize=13, color=colour)


def _video(
    figure: Figure,
    top: float,
    grid: frames.Grid,
    evidence: Evidence,
    importance: Mapping[str, float],
    timeline_size: tuple[float, float],
) -> None:
    """Draw the frames across the figure, and below them the timeline."""
    attention = attention_over_time(evidence, importance)
    names = [*timeline.source_names(evidence), *frames.shown_names(evidence)]
    colours = canvas.class_colours(names)
    box = canvas.Box(MARGIN, top, WIDTH - 2 * MARGIN, grid.total_height)
    total = sum(attention.values()) if attention else None
    frames.draw(figure, box, grid, evidence, colours, total)
    below = top + grid.total_height + MARGIN
    timeline.draw(figure, canvas.Box(MARGIN, below, *timeline_size), evidence, colours, attention)
