"""Figures that are laid out in pixels, and the colours of streams and instruments.

Matplotlib's own layout draws every text twice to measure it. A layout in pixels is several times as
fast, and text keeps its size on every page.
"""

import textwrap
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 100  # pixels per inch
INK, FAINT, GRID = '#1f2933', '#52606d', '#d9dee3'
RIGHT, WRONG, OTHER = '#267c37', '#c92a2a', '#9aa5b1'

# Both streams of a pair have one hue.
STREAM_COLOURS = {
    'visual': '#2f5d8a',
    'audio': '#8fb8de',
    'rhythm_visual': '#b5562b',
    'rhythm_audio': '#eea873',
    'source_visual': '#3b7d4f',
    'source_audio': '#93cda0',
    'regions': '#7b4fa0',
}
# White text is readable on all of them.
_CLASS_COLOURS = (
    '#1d4ed8', '#c2410c', '#15803d', '#a21caf', '#0e7490', '#be123c', '#6d28d9', '#4d7c0f',
    '#92400e', '#334155',
)  # fmt: skip


class Box(NamedTuple):
    """A rectangle of a figure, in pixels from its top left corner."""

    left: float
    top: float
    width: float
    height: float


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def add_axes(figure: Figure, box: Box) -> Axes:
    """Add axes without a frame whose plotting area is the box."""
    width, height = figure.bbox.size
    axes = figure.add_axes(
        (
            box.left / width,
            1 - (box.top + box.height) / height,
            box.width / width,
            box.height / height,
        )
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=11, labelcolor=INK)
    return axes


def add_text(figure: Figure, left: float, top: float, text: str, **style) -> None:
    """Write text whose top left corner is at this pixel; '$' and '\\' are plain characters."""
    width, height = figure.bbox.size
    style = {'color': INK, 'fontsize': 11, 'va': 'top'} | style
    figure.text(left / width, 1 - top / height, text, parse_math=False, **style)


def wrap(text: str, columns: int, lines: int) -> list[str]:
    """Break text into at most so many lines; '...' stands for the rest."""
    return textwrap.wrap(usual_signs(text), columns, max_lines=lines, placeholder=' ...') or ['']


def usual_signs(text: str) -> str:
    """Replace full-width signs, such as a template's question mark, which many fonts lack."""
    return unicodedata.normalize('NFKC', text)


def percent(share: float) -> str:
    """Write a share in whole per cent; a small one that is not zero is '<1 %'."""
    return '<1 %' if 0 < share < 0.01 else f'{100 * share:.0f} %'


def class_colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name, in the order in which they first appear."""
    unique = dict.fromkeys(names)
    return {name: _CLASS_COLOURS[index % len(_CLASS_COLOURS)] for index, name in enumerate(unique)}


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write the figure as PNG to a path, whose folder is made, or to an open file."""
    if isinstance(file, Path):
        file.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(file)
