"""The frames of a video with its regions, for an example page."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from amuse_jax.evaluation.page import canvas
from amuse_jax.evaluation.page.evidence import Evidence

GAP, CAPTION = 8, 24  # pixels between frames and below each
MIN_AREA = 30_000  # pixels of a frame in which players can be told apart
MAX_HEIGHT = 300
LETTER, LABEL_HEIGHT = 6.8, 13  # pixels of a region's name: a letter's width, and the height
WIDE = 200  # a caption of a frame as wide as this says what its share is
PLAYER = 'player'


class Grid(NamedTuple):
    """Where the frames stand: their number in a row, and the size of each in pixels."""

    columns: int
    rows: int
    width: float
    height: float

    @property
    def total_height(self) -> float:
        """Height of all rows with their captions."""
        return self.rows * (self.height + CAPTION + GAP) - GAP


def arrange(frames: int, shape: tuple[int, int], width: float) -> Grid:
    """Return the grid with the fewest rows whose frames have MIN_AREA pixels each.

    Args:
      frames: number of frames.
      shape: height and width of the video.
      width: width of the grid in pixels.
    """
    aspect = shape[1] / shape[0]
    for rows in range(1, frames + 1):
        columns = -(-frames // rows)
        cell = (width + GAP) / columns - GAP
        frame_width = min(cell, MAX_HEIGHT * aspect)
        if frame_width**2 / aspect >= MIN_AREA:
            break
    return Grid(columns, -(-frames // columns), frame_width, frame_width / aspect)


def frame_box(box: canvas.Box, grid: Grid, index: int) -> canvas.Box:
    """Return where the frame of a segment stands in the box of all frames."""
    row, column = divmod(index, grid.columns)
    left = column * (box.width + GAP) / grid.columns
    top = row * (grid.height + CAPTION + GAP)
    return canvas.Box(box.left + left, box.top + top, grid.width, grid.height)


def draw(
    figure: Figure,
    box: canvas.Box,
    grid: Grid,
    evidence: Evidence,
    colours: Mapping[str, str],
    attention: np.ndarray | None,
) -> None:
    """Draw every segment's frame with its regions, and a caption with time and attention.

    Args:
      figure: the figure.
      box: where to draw, as high as the grid.
      grid: the arrangement of the frames.
      evidence: the evidence.
      colours: colour by name of a region's class.
      attention: (T,) share of the whole attention; None if it is not known.
    """
    axes = canvas.add_axes(figure, box)
    axes.set_axis_off()
    inside = canvas.Box(0, 0, box.width, box.height)
    for index in range(evidence.segments):
        left, top, *_ = frame_box(inside, grid, index)
        axes.imshow(
            evidence.frames[index],
            extent=(left, left + grid.width, top + grid.height, top),
            interpolation='lanczos',
        )
        seconds = (index + 0.5) * evidence.segment_seconds
        style = {'fontsize': 10.5, 'va': 'center', 'color': canvas.INK}
        middle = top + grid.height + CAPTION / 2
        axes.text(left, middle, f'{seconds:.0f} s', **style)
        if attention is not None:
            share = canvas.percent(attention[index])
            text = f'{share} of attention' if grid.width >= WIDE else share
            axes.text(left + grid.width, middle, text, ha='right', **style)
        _regions(axes, left, top, grid, evidence, index, colours)
    axes.set_aspect('auto')
    axes.set_xlim(0, box.width)
    axes.set_ylim(box.height, 0)


def shown_names(evidence: Evidence) -> list[str]:
    """Return the class names of all regions, without players."""
    present = np.unique(evidence.classes[evidence.classes >= 0])
    names = [evidence.class_names[index].replace('_', ' ') for index in present]
    return [name for name in names if name != PLAYER]


def _regions(
    axes: Axes,
    left: float,
    top: float,
    grid: Grid,
    evidence: Evidence,
    index: int,
    colours: Mapping[str, str],
) -> None:
    """Draw the boxes of one frame; those with more attention are thicker.

    A player's box is drawn only if it has much attention: the instrument shows who plays, and fewer
    boxes read better. A name that would cover another one is left out: a player's, or that of the
    box with less attention.
    """
    weights = evidence.region_weights
    is_known = weights is not None and weights.size > 0
    most = max(float(weights.max()), 1e-9) if is_known else 1.0
    shares = weights[index] if is_known else np.zeros(evidence.classes.shape[1])
    scale = (grid.width, grid.height) * 2
    labels: list[tuple[float, float, float]] = []  # left, bottom and width of each
    names = [evidence.region_name(index, region) for region in range(len(shares))]
    order = sorted(
        range(len(shares)), key=lambda region: (names[region] == PLAYER, -shares[region])
    )
    for region in order:
        name, strength = names[region], float(shares[region]) / most
        if not name or (name == PLAYER and strength < 0.5):
            continue
        x0, y0, x1, y1 = evidence.boxes[index, region].astype(float) * scale
        style = {'alpha': 0.55 + 0.45 * strength if is_known else 0.9, 'zorder': 2 + strength}
        colour = colours.get(name, canvas.FAINT)
        line_width = 1 + 2.5 * strength if is_known else 1.6
        axes.add_patch(
            Rectangle(
                (left + x0, top + y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=line_width,
                **style,
            )
        )  # fmt: skip
        text = f'{name} {canvas.percent(shares[region])}' if is_known else name
        width = LETTER * len(text)
        label = (max(0, min(x0 + 1, grid.width - width)), max(y0, LABEL_HEIGHT), width)
        if not any(_overlap(label, other) for other in labels):
            labels.append(label)
            axes.text(
                left + label[0], top + label[1], text,
                color='w', fontsize=8, va='bottom', clip_on=True, parse_math=False, zorder=4,
                bbox={'facecolor': colour, 'edgecolor': 'none', 'pad': 1.2},
            )  # fmt: skip


def _overlap(label: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    is_beside = label[0] > other[0] + other[2] or other[0] > label[0] + label[2]
    return not is_beside and abs(label[1] - other[1]) < LABEL_HEIGHT
