"""Example page in the style of Fig. 4: one question with its video, sounds and answer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from amuse_jax.evaluation import figures
from amuse_jax.music_avqa import vocabulary

USUAL_SHAPE = (9, 16)  # of videos whose records do not say their shape


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the page shows of the video, for T segments and K regions.

    Attributes:
      frames: (T, S, S, 3) uint8, one frame per segment, stretched to a square.
      shape: height and width of the video, in pixels.
      boxes: (T, K, 4), xyxy in [0, 1] of the picture.
      classes: (T, K), index into class_names; -1 for no region.
      class_names: names of the detector's classes.
      sources: (T, 22), how often each instrument sounds.
      rhythm: (T,), 1 if the tempo changes from this segment to the next.
      labels_from: where sources and rhythm come from, such as 'annotated'.
      segment_seconds: length of a segment.
    """

    frames: np.ndarray
    shape: Sequence[int]
    boxes: np.ndarray
    classes: np.ndarray
    class_names: Sequence[str]
    sources: np.ndarray
    rhythm: np.ndarray
    labels_from: str
    segment_seconds: float


def draw(
    evidence: Evidence,
    question: str,
    probabilities: np.ndarray,
    importance: dict[str, float],
    answer: str | None,
    path: Path,
) -> None:
    """Write the page as PNG.

    Args:
      evidence: frames, regions and labels of the video.
      question: the text of the question.
      probabilities: (42,) over vocabulary.ANSWERS.
      importance: importance score of each stream; they sum to one.
      answer: the true answer; None if it is not known.
      path: the PNG to write.
    """
    figure = Figure(figsize=(13, 8), layout='constrained')
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(2.4, 2.4, 2))
    top.suptitle(question, fontsize=14, weight='bold')
    _frames(top, evidence)
    _timeline(middle.subplots(), evidence)
    answers, streams = bottom.subplots(1, 2)
    _answers(answers, probabilities, answer)
    names = list(importance)
    streams.barh(names[::-1], [importance[name] for name in names[::-1]], color='#4878a8')
    streams.set_title('importance of each stream', fontsize=10)
    streams.set_xlim(0, 1)
    figures.save(figure, path)


def _frames(panel, evidence: Evidence) -> None:
    segments = len(evidence.frames)
    grid = panel.subplots(2, -(-segments // 2), squeeze=False).ravel()
    size = evidence.frames.shape[1]
    height, width = evidence.shape
    palette = [f'C{index}' for index in range(10)]
    for index, axes in enumerate(grid):
        axes.set_axis_off()
        if index >= segments:
            continue
        axes.imshow(evidence.frames[index], aspect=height / width)
        seconds = (index + 0.5) * evidence.segment_seconds
        axes.set_title(f'{seconds:.0f} s', fontsize=8, pad=1)
        for box, kind in zip(evidence.boxes[index].astype(float) * size, evidence.classes[index]):
            name = evidence.class_names[kind] if kind >= 0 else 'player'
            if name == 'player':  # the instrument shows who plays; fewer boxes read better
                continue
            colour = palette[kind % 10]
            x0, y0, x1, y1 = box
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=1.2))
            axes.text(x0, y0 - 1, name.replace('_', ' '), color=colour, fontsize=6, weight='bold')


def _timeline(axes, evidence: Evidence) -> None:
    audible = [c for c in range(evidence.sources.shape[1]) if evidence.sources[:, c].max() > 0.2]
    names = [vocabulary.INSTRUMENTS[c].replace('_', ' ') for c in audible]
    strength = np.clip(evidence.sources[:, audible].T.astype(float), 0, 1)
    change = np.clip(evidence.rhythm.astype(float), 0, 1)
    seconds = evidence.segment_seconds
    rows = np.vstack([strength, change[None]])
    axes.imshow(
        rows, aspect='auto', cmap='Blues', vmin=0, vmax=1, origin='lower',
        extent=(0, len(evidence.sources) * seconds, -0.5, len(rows) - 0.5),
    )  # fmt: skip
    axes.set_yticks(range(len(rows)), [*names, 'rhythm changes'])
    axes.set_xticks(np.arange(0, len(evidence.sources) + 1) * seconds)
    axes.set_xlabel('seconds')
    axes.set_title(f'sources and rhythm per segment ({evidence.labels_from})', fontsize=10)


def _answers(axes, probabilities: np.ndarray, answer: str | None) -> None:
    best = np.argsort(probabilities)[::-1][:5][::-1]
    names = [vocabulary.ANSWERS[index] for index in best]
    colours = ['#2f9e44' if name == answer else '#adb5bd' for name in names]
    axes.barh([name.replace('_', ' ') for name in names], probabilities[best], color=colours)
    axes.set_xlim(0, 1)
    truth = '' if answer is None else f'; the true one is {answer.replace("_", " ")}'
    axes.set_title(f'answer: {names[-1].replace("_", " ")}{truth}', fontsize=10)
