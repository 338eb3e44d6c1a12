"""Confidence intervals of accuracies, by a bootstrap over test videos.

The questions about one video are not independent: a model that overlooks its cello gets several of
them wrong. So each resample draws whole videos with replacement, with all of their questions (a
cluster bootstrap: Field and Welsh 2007). Version 2 has several videos of some performances,
mirrored copies and further minutes; they are drawn together. The interval is the middle 95 % of the
resamples' accuracies (Efron's percentile interval). All methods and columns share the same draws.

We do not use `scipy.stats.bootstrap` because it returns NaN for a column as soon as one resample
has no question of that type, which happens for rare types of small test sets.

These intervals do not cover the choice of the training seed: see evaluation/seeds.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from amuse_jax.evaluation import tables
from amuse_jax.music_avqa import Question, videos

LEVEL = 0.95
RESAMPLES = 2000
_BATCH = 100  # resamples in memory at a time

Interval = tuple[float, float]


def intervals(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]], seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Compute the 95 % interval of every cell of the table.

    Args:
      questions: n questions, at least one.
      is_correct: for each method, (n,) whether its answers are right.
      seed: seed of the draws; the same seed gives the same intervals.

    Returns:
      For each method and column of tables.COLUMNS: (low, high) in per cent, or NaN if the column
      has no question.
    """
    shares = _resampled(questions, is_correct, seed)
    return dict(zip(is_correct, _percentiles(shares)))


def difference_intervals(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]], base: str
) -> dict[str, dict[str, Interval]]:
    """Compute the 95 % interval of how many points each method is above another one.

    Both answer the same questions, and every resample compares them on the same videos. So the
    interval is narrower than those of the two accuracies suggest.

    Args:
      questions: n questions, at least one.
      is_correct: for each method, (n,) whether its answers are right.
      base: the method that the others are compared with.

    Returns:
      For each other method and column of tables.COLUMNS: (low, high) in percentage points, or NaN
      if the column has no question.
    """
    shares = dict(zip(is_correct, _resampled(questions, is_correct, seed=0).swapaxes(0, 1)))
    others = [method for method in is_correct if method != base]
    differences = np.stack([shares[method] - shares[base] for method in others], axis=1)
    return dict(zip(others, _percentiles(differences)))


def margins(intervals: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, float]]:
    """Return half the width of every interval."""
    return {
        method: {column: (high - low) / 2 for column, (low, high) in row.items()}
        for method, row in intervals.items()
    }


def _resampled(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]], seed: int
) -> np.ndarray:
    """Return the accuracies of every resample in per cent: (RESAMPLES, methods, 13).

    The accuracy is NaN where a resample has no question of the column.
    """
    totals = _per_performance(questions, is_correct)
    drawn = _resample(totals, np.random.default_rng(seed)) @ tables.MEMBERS
    asked, right = drawn[:, :1], drawn[:, 1:]
    return 100 * np.divide(right, asked, out=np.full_like(right, np.nan), where=asked > 0)


def _percentiles(values: np.ndarray) -> list[dict[str, Interval]]:
    """Return the middle 95 % of (RESAMPLES, methods, 13) values, by method and column.

    A resample without a question of a rare type is left out of the percentiles of its columns.
    """
    never = np.isnan(values).all(axis=(0, 1))
    tail = 50 * (1 - LEVEL)
    bounds = np.nanpercentile(np.where(never, 0, values), [tail, 100 - tail], axis=0)
    bounds[..., never] = np.nan
    return [dict(zip(tables.COLUMNS, zip(*method.tolist()))) for method in bounds.swapaxes(0, 1)]


def _per_performance(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]]
) -> np.ndarray:
    """Count questions and right answers by performance and type: (P, 1 + methods, 9).

    The questions are the first of the 1 + methods. What is seen decides the performance, also where
    the sound is that of another video.
    """
    names = [videos.performance_name(question.video_id) for question in questions]
    performances, index = np.unique(names, return_inverse=True)
    kinds = len(tables.MEMBERS)
    cell, size = index * kinds + tables.types_of(questions), len(performances) * kinds
    totals = [np.bincount(cell, minlength=size)]
    totals += [np.bincount(cell, np.asarray(hits, float), size) for hits in is_correct.values()]
    return np.stack(totals).reshape(len(totals), len(performances), kinds).transpose(1, 0, 2)


def _resample(totals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sum the counts over P performances drawn with replacement: (RESAMPLES, 1 + methods, 9)."""
    count = len(totals)
    flat = np.ascontiguousarray(totals, float).reshape(count, -1)
    found = []
    for _ in range(0, RESAMPLES, _BATCH):
        drawn = rng.integers(count, size=(_BATCH, count)) + count * np.arange(_BATCH)[:, None]
        times = np.bincount(drawn.ravel(), minlength=_BATCH * count).reshape(_BATCH, count)
        found.append(times.astype(float) @ flat)
    return np.concatenate(found).reshape(RESAMPLES, *totals.shape[1:])
