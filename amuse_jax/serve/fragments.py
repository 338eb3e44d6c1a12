"""The pieces of HTML that the page shows. Jinja escapes every value in them."""

import base64
import functools
import io
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import numpy as np
from matplotlib.figure import Figure

from amuse_jax.ask.answer import Answer, Segment
from amuse_jax.ask.model import WATCH_STEPS
from amuse_jax.evaluation import example_page
from amuse_jax.evaluation.page import canvas
from amuse_jax.music_avqa import vocabulary

STEPS = (*WATCH_STEPS, 'answering')
_AUDIBLE = 0.2  # sources that sound less often are not named
_drawing = threading.Lock()  # Matplotlib draws in one thread at a time


class _Chart(NamedTuple):
    """A picture: its address, its size in pixels, and what it shows in words."""

    source: str
    width: int
    height: int
    text: str


class _Place(NamedTuple):
    """A part of the picture that can be clicked on; sides are in per cent of the picture's."""

    kind: str
    seconds: float
    label: str
    left: float
    top: float
    width: float
    height: float


def steps(times: Mapping[str, float]) -> str:
    """Return a line with all steps, of which those up to the last one measured are done.

    Args:
      times: the seconds that steps took. Those of an earlier visit are not in it.
    """
    done = max((STEPS.index(name) + 1 for name in times), default=0)
    return _macro('steps')(times, done)


def message(text: str) -> str:
    """Return a sentence for the visitor."""
    return _macro('message')(text, 'hint')


def failure(text: str) -> str:
    """Return a sentence that says why something did not work."""
    return _macro('message')(text, 'failure')


def answer(found: Answer) -> str:
    """Return an answer with its notes and the charts of probabilities and importance."""
    values = np.array([found.probabilities[name] for name in vocabulary.ANSWERS])
    with _drawing:
        charts = {
            'probabilities': _chart(
                example_page.answers_figure(values, None),
                'Most probable answers: ' + _list(found.probabilities, 5),
            ),
            'importance': _chart(
                example_page.importance_figure(found.importance),
                'Importance of each stream: ' + _list(found.importance, len(found.importance)),
            ),
        }
    return _macro('answer')(found, charts)


def evidence(found: Answer) -> str:
    """Return the frames and the timeline of a video, with buttons that play its segments."""
    with _drawing:
        figure = example_page.video_figure(found.evidence, found.importance)
        chart = _chart(figure, 'Frames with regions, sources, rhythm, and attention of the answer')
    size = figure.bbox.size
    places = []
    for segment, (frame, line) in zip(found.timeline, example_page.segment_boxes(found.evidence)):
        label = _describe(segment)
        middle = (segment.start + segment.end) / 2  # when the frame is shown
        places.append(_Place('frame', middle, label, *_shares(frame, size)))
        places.append(_Place('segment', segment.start, label, *_shares(line, size)))
    shown = [place for place in places if place.kind == 'segment']
    whole = shown[0]._replace(width=sum(place.width for place in shown))
    seconds = found.timeline[len(shown) - 1].end
    return _macro('evidence')(chart, places, whole, seconds)


def asked(rows: Sequence[tuple[str, str, float]]) -> str:
    """Return a table of questions, answers and probabilities; '' if there are fewer than two."""
    return _macro('asked')(rows) if len(rows) > 1 else ''


def _describe(segment: Segment) -> str:
    heard = [
        f'{name.replace("_", " ")} {canvas.percent(share)}'
        for name, share in segment.sources.items()
        if share > _AUDIBLE
    ]
    change = ['the tempo changes after it'] if segment.rhythm > 0.5 else []
    return ', '.join(
        [
            f'{segment.start:g} to {segment.end:g} s',
            f'{canvas.percent(segment.weight)} of attention',
            *(heard or ['no source']),
            *change,
        ]
    )


def _list(values: Mapping[str, float], count: int) -> str:
    """Return the first few names with their shares."""
    pairs = list(values.items())[:count]
    return ', '.join(f'{name.replace("_", " ")} {canvas.percent(share)}' for name, share in pairs)


def _chart(figure: Figure, text: str) -> _Chart:
    file = io.BytesIO()
    canvas.save(figure, file)
    source = f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'
    return _Chart(source, *map(round, figure.bbox.size), text)


def _shares(box: canvas.Box, size: Sequence[float]) -> list[float]:
    """Return the sides of a box in per cent of a figure's."""
    return [round(100 * side / whole, 3) for side, whole in zip(box, (*size, *size))]


@functools.cache
def _macro(name: str):
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('amuse_jax.serve', ''),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['percent'] = canvas.percent
    environment.filters['spaced'] = lambda text: text.replace('_', ' ')
    module = environment.get_template('fragments.html.jinja', globals={'names': STEPS}).module
    return getattr(module, name)
