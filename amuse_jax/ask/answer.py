"""The answer to a question about a video, and what it rests on."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from amuse_jax.evaluation.page.evidence import Evidence
from amuse_jax.music_avqa import vocabulary

SHOWN = 5  # answers that a terminal shows


@dataclasses.dataclass(frozen=True)
class Region:
    """A region of interest in the picture of one segment.

    Attributes:
      seconds: when the picture is shown.
      box: x0, y0, x1, y1 as fractions of the picture's sides.
      name: the detector's class.
      score: the detector's score, in [0, 1].
      weight: share of the answer's attention to regions that this one got.
    """

    seconds: float
    box: tuple[float, float, float, float]
    name: str
    score: float
    weight: float


@dataclasses.dataclass(frozen=True)
class Segment:
    """What the model heard in a segment of the video, and how much the answer looked at it.

    Attributes:
      start: when the segment begins, in seconds.
      end: when it ends, in seconds.
      sources: how often each instrument sounds, in [0, 1], by name.
      rhythm: probability that the rhythm changes after this segment.
      weight: share of the answer's attention to segments, weighted by the streams' importance.
    """

    start: float
    end: float
    sources: dict[str, float]
    rhythm: float
    weight: float


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to a question about a video.

    Attributes:
      question: the question.
      text: the most probable answer, one of vocabulary.ANSWERS.
      probabilities: the probability of each of the 42 answers, the highest first.
      importance: the importance of each stream; the values sum to one (Fig. 5).
      regions: the regions of interest, those with the most attention first.
      timeline: the segments of the video, in order.
      notes: what the model did not see or never met, as sentences.
      evidence: what `page` draws.
    """

    question: str
    text: str
    probabilities: dict[str, float]
    importance: dict[str, float]
    regions: tuple[Region, ...]
    timeline: tuple[Segment, ...]
    notes: tuple[str, ...]
    evidence: Evidence = dataclasses.field(repr=False, compare=False)

    def page(self, path: str | Path) -> Path:
        """Draw frames, regions, timeline, probabilities and importance as a PNG.

        Returns:
          The path of the file.
        """
        from amuse_jax.evaluation import example_page  # Matplotlib takes a while to import

        path = Path(path)
        values = np.array([self.probabilities[name] for name in vocabulary.ANSWERS])
        example_page.draw(self.evidence, self.question, values, self.importance, None, path)
        return path

    def to_json(self) -> dict:
        """Return everything but the pictures as JSON values."""
        names = (field.name for field in dataclasses.fields(self) if field.name != 'evidence')
        content = {name: getattr(self, name) for name in names}
        content['regions'] = [vars(each) | {'box': list(each.box)} for each in self.regions]
        content['timeline'] = [dataclasses.asdict(each) for each in self.timeline]
        return content | {'notes': list(self.notes)}

    def __str__(self) -> str:
        """Return the most probable answers, the importance of each stream, and the notes."""
        best = list(self.probabilities.items())[:SHOWN]
        lines = [self.question, f'answer: {self.text}', '']
        lines += [f'  {share:6.1%}  {name}' for name, share in best]
        lines += ['', 'importance of each stream:']
        lines += [f'  {share:6.1%}  {name}' for name, share in self.importance.items()]
        lines += ['', *(f'note: {note}' for note in self.notes)] if self.notes else []
        return '\n'.join(lines)


def timeline(
    sources: np.ndarray, rhythm: np.ndarray, weights: np.ndarray, segment_seconds: float
) -> tuple[Segment, ...]:
    """Return the segments of a video.

    Args:
      sources: (T, 22), how often each instrument sounds.
      rhythm: (T,), probability that the rhythm changes after the segment.
      weights: (T,), share of the answer's attention.
      segment_seconds: length of a segment.
    """
    return tuple(
        Segment(
            start=index * segment_seconds,
            end=(index + 1) * segment_seconds,
            sources=dict(zip(vocabulary.INSTRUMENTS, map(float, sources[index]))),
            rhythm=float(rhythm[index]),
            weight=float(weights[index]),
        )
        for index in range(len(sources))
    )


def regions(
    found: dict[str, np.ndarray],
    weights: np.ndarray,
    class_names: Sequence[str],
    segment_seconds: float,
) -> tuple[Region, ...]:
    """Return the regions of a video, those with the most attention first.

    Args:
      found: 'boxes' (T, K, 4), 'classes' (T, K) and 'scores' (T, K).
      weights: (T, K), each region's share of the attention to regions.
      class_names: names of the detector's classes.
      segment_seconds: length of a segment.
    """
    listed = [
        Region(
            seconds=(int(segment) + 0.5) * segment_seconds,
            box=tuple(map(float, found['boxes'][segment, index])),
            name=class_names[found['classes'][segment, index]],
            score=float(found['scores'][segment, index]),
            weight=float(weights[segment, index]),
        )
        for segment, index in np.argwhere(found['classes'] >= 0)
    ]
    return tuple(sorted(listed, key=lambda region: -region.weight))
