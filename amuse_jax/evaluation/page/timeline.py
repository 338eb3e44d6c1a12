"""The timeline of an example page: sources, rhythm, and the answer's attention over time."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amuse_jax.evaluation.page import canvas
from amuse_jax.evaluation.page.evidence import Evidence
from amuse_jax.music_avqa import vocabulary

AUDIBLE = 0.2  # a source that is nowhere stronger has no line
MOST_SOURCES = 8  # lines; the strongest sources have them
LINE, ATTENTION, GAP, LABELS, TITLE, SECONDS = 24, 84, 12, 128, 26, 26  # pixels


def audible(evidence: Evidence) -> list[int]:
    """Return the indices of the instruments that have a line, in the vocabulary's order."""
    strongest = evidence.sources[: evidence.segments].max(axis=0)
    chosen = [index for index in np.argsort(-strongest) if strongest[index] > AUDIBLE]
    return sorted(int(index) for index in chosen[:MOST_SOURCES])


def source_names(evidence: Evidence) -> list[str]:
    """Return the names of the instruments that have a line."""
    return [vocabulary.INSTRUMENTS[index].replace('_', ' ') for index in audible(evidence)]


def least_height(evidence: Evidence) -> float:
    """Return the pixels that the timeline needs; bars of attention become higher if it has more."""
    lines = max(1, len(audible(evidence))) + 1
    attention = 0 if evidence.time_weights is None else ATTENTION + GAP
    return TITLE + lines * LINE + attention + SECONDS


def segment_box(box: canvas.Box, evidence: Evidence, index: int) -> canvas.Box:
    """Return where a segment stands in the box of the timeline, in all lines and bars."""
    width = (box.width - LABELS) / evidence.segments
    height = box.height - TITLE - SECONDS
    return canvas.Box(box.left + LABELS + index * width, box.top + TITLE, width, height)


def draw(
    figure: Figure,
    box: canvas.Box,
    evidence: Evidence,
    colours: Mapping[str, str],
    attention: Mapping[str, np.ndarray],
) -> None:
    """Draw a line for each source and one for the rhythm, and below them bars of the attention.

    Args:
      figure: the figure.
      box: where to draw; it is at least `least_height` high.
      evidence: the evidence.
      colours: colour by name of an instrument.
      attention: (T,) share of the whole attention by stream; {} if it is not known.
    """
    title = f'Sources and rhythm ({evidence.labels_from})'
    canvas.add_text(figure, box.left, box.top, title, weight='bold')
    left, width = box.left + LABELS, box.width - LABELS
    lines = max(1, len(audible(evidence))) + 1
    top, size = box.top + TITLE, lines * LINE
    axes = canvas.add_axes(figure, canvas.Box(left, top, width, size))
    _lines(axes, evidence, colours)
    if attention:
        axes.set_xticklabels([])
        top += size + GAP
        rest = box.top + box.height - SECONDS - top
        axes = canvas.add_axes(figure, canvas.Box(left, top, width, rest))
        _attention(axes, evidence, attention)
    ends = _ticks(evidence)
    axes.set_xticks(ends, [*(f'{end:g}' for end in ends[:-1]), f'{ends[-1]:g} s'])


def _ticks(evidence: Evidence) -> np.ndarray:
    """Return the limits of the segments in seconds, or every nth one, at most about 12."""
    step = -(-evidence.segments // 12)
    return np.arange(0, evidence.segments + 1, step) * evidence.segment_seconds


def _set_time_axis(axes: Axes, evidence: Evidence) -> None:
    seconds = evidence.segment_seconds
    axes.set_xlim(0, evidence.segments * seconds)
    axes.set_xticks(_ticks(evidence))
    for edge in range(evidence.segments + 1):
        axes.axvline(edge * seconds, color=canvas.GRID, lw=0.8, zorder=0)


def _lines(axes: Axes, evidence: Evidence, colours: Mapping[str, str]) -> None:
    """Draw the sources' lines, darker where a source sounds more often, and the rhythm's marks."""
    _set_time_axis(axes, evidence)
    seconds, segments = evidence.segment_seconds, evidence.segments
    starts = np.arange(segments) * seconds
    names = source_names(evidence)
    for line, (index, name) in enumerate(zip(audible(evidence), names)):
        strength = np.clip(evidence.sources[:segments, index].astype(float), 0, 1)
        red, green, blue = (int(colours[name][at : at + 2], 16) / 255 for at in (1, 3, 5))
        shades = [(red, green, blue, alpha) for alpha in strength]
        axes.barh([line] * segments, seconds, 0.6, starts, align='center', color=shades)
    changes = np.clip(evidence.rhythm[:segments].astype(float), 0, 1)
    rhythm = max(1, len(names))
    for index in np.flatnonzero(changes > AUDIBLE):
        axes.plot(
            (index + 1) * seconds, rhythm, 'D', ms=8, color=canvas.INK, alpha=changes[index],
            clip_on=False, mew=0,
        )  # fmt: skip
    axes.set_yticks(range(rhythm + 1), [*(names or ['no source']), 'tempo changes'])
    axes.set_ylim(rhythm + 0.5, -0.5)


def _attention(axes: Axes, evidence: Evidence, attention: Mapping[str, np.ndarray]) -> None:
    """Draw a bar for each segment, stacked from the streams."""
    _set_time_axis(axes, evidence)
    seconds, segments = evidence.segment_seconds, evidence.segments
    middles = (np.arange(segments) + 0.5) * seconds
    base = np.zeros(segments)
    for name, shares in attention.items():
        shares = shares[:segments]
        axes.bar(
            middles, shares, 0.82 * seconds, base, color=canvas.STREAM_COLOURS[name], linewidth=0
        )
        base = base + shares
    top = max(float(base.max()), 1e-9) * 1.1
    axes.set_ylim(0, top)
    axes.set_yticks([top / 2], ['attention of\nthe answer'])
