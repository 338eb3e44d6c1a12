"""How far an accuracy may be off by the choice of test videos: a bootstrap over videos.

The questions of one video hang together: whoever overlooks its cello is wrong in several of them.
So whole videos are drawn with replacement, as many as there are, with all of their questions (a
cluster bootstrap: Field and Welsh 2007), and the interval is the middle 95 % of the accuracies that
come out (Efron's percentile interval). The draws are the same for every method and column.

It tells nothing of another seed of training: see evaluation/seeds.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from amuse_jax.evaluation import tables
from amuse_jax.music_avqa import Question

LEVEL = 0.95
RESAMPLES = 2000
_AT_ONCE = 100  # resamples in memory

Interval = tuple[float, float]


def intervals(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]], seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """The 95 % interval of every cell of the table.

    Args:
      questions: n of them, at least one.
      is_correct: (n,) by method.
      seed: of the draws; the same one gives the same intervals.

    Returns:
      By method and column of tables.COLUMNS, (low, high) in per cent; NaN without a question.
    """
    totals = _per_video(questions, is_correct)
    drawn = _resample(totals, np.random.default_rng(seed)) @ tables.MEMBERS
    asked, right = drawn[:, :1], drawn[:, 1:]
    # A resample may miss a rare column altogether: it says nothing about it.
    shares = 100 * np.divide(right, asked, out=np.full_like(right, np.nan), where=asked > 0)
    never = ~(asked > 0).any(axis=(0, 1))
    shares[..., never] = 0
    tail = 50 * (1 - LEVEL)
    bounds = np.nanpercentile(shares, [tail, 100 - tail], axis=0)
    bounds[..., never] = np.nan
    return {
        method: dict(zip(tables.COLUMNS, zip(*bounds[:, index].tolist())))
        for index, method in enumerate(is_correct)
    }


def margins(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, float]]:
    """Half of every interval's width."""
    return {
        method: {column: (high - low) / 2 for column, (low, high) in row.items()}
        for method, row in found.items()
    }


def _per_video(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]]
) -> np.ndarray:
    """(V, 1 + methods, 9): per video and type how many questions, and how many each has right."""
    videos, video = np.unique([q.video_id for q in questions], return_inverse=True)
    kinds = len(tables.MEMBERS)
    cell, size = video * kinds + tables.types_of(questions), len(videos) * kinds
    totals = [np.bincount(cell, minlength=size)]
    totals += [np.bincount(cell, np.asarray(hits, float), size) for hits in is_correct.values()]
    return np.stack(totals).reshape(len(totals), len(videos), kinds).transpose(1, 0, 2)


def _resample(totals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, 1 + methods, 9): the sums over V videos drawn with replacement."""
    count = len(totals)
    flat = np.ascontiguousarray(totals, float).reshape(count, -1)
    found = []
    for _ in range(0, RESAMPLES, _AT_ONCE):
        drawn = rng.integers(count, size=(_AT_ONCE, count)) + count * np.arange(_AT_ONCE)[:, None]
        times = np.bincount(drawn.ravel(), minlength=_AT_ONCE * count).reshape(_AT_ONCE, count)
        found.append(times.astype(float) @ flat)
    return np.concatenate(found).reshape(RESAMPLES, *totals.shape[1:])
