"""The rows of the paper's Tables 2-4, its own and its peers', as printed there (published.csv).

Printed averages do not always follow from the numbers they average. AVST's and DG-SCT's of Table 2
count questions, as `tables.accuracies` does; LSTTA's are means over the types; the audio averages
of Table 3, of Amuse and of its ablations weigh counting with 0.527 and comparing with 0.473, which
is the share of neither test set (0.63 and 0.68). `doubtful` names such cells.
"""

import csv
import dataclasses
import functools
import math
from collections.abc import Sequence
from importlib import resources

import numpy as np

from amuse_jax.evaluation import tables, test_sets

MARK = '*'  # behind a doubtful average
_TOLERANCE = 0.05  # points; the rounding of the parts explains 0.01


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed row.

    Attributes:
      table: its number in the paper.
      test_set: what it answers, as TestSet.published.
      method: with its authors.
      source: where it is printed.
      row: in per cent; NaN where nothing is printed.
    """

    table: int
    test_set: str
    method: str
    source: str
    row: dict[str, float]


@functools.cache
def read() -> tuple[Published, ...]:
    """All rows, in the paper's order."""
    text = resources.files('amuse_jax.evaluation').joinpath('published.csv').read_text()
    return tuple(
        Published(
            table=int(line['table']),
            test_set=line['test_set'],
            method=line['method'],
            source=line['source'],
            row={c: math.nan if line[c] == '-' else float(line[c]) for c in tables.COLUMNS},
        )
        for line in csv.DictReader(text.splitlines())
    )


def methods(test_set: str) -> list[Published]:
    """Table 2 for 'v1', Table 3 for 'v2', nothing for anything else."""
    return [row for row in read() if row.test_set == test_set and row.table in (2, 3)]


def ablations(test_set: str) -> list[Published]:
    """Table 4 for 'v1', nothing for anything else."""
    return [row for row in read() if row.test_set == test_set and row.table == 4]


def doubtful(row: Published) -> set[str]:
    """The averages that miss those over its test set's questions by more than 0.05 points.

    A row of v1 may have been counted over either of its two files.
    """
    printed = np.array([row.row[column] for column in tables.TYPE_COLUMNS])
    candidates = [known.counts for known in test_sets.KNOWN if known.published == row.test_set]
    far = [
        {
            column
            for column in tables.AVERAGES
            if abs(_average(printed, counts, column) - row.row[column]) > _TOLERANCE
        }
        for counts in candidates
    ]
    return min(far, key=len)


def marked(rows: Sequence[Published]) -> dict[str, dict[str, float | str]]:
    """The rows by method, for a table: MARK stands behind every doubtful average."""
    return {
        row.method: {
            column: f'{value:.2f}{MARK}' if column in doubtful(row) else value
            for column, value in row.row.items()
        }
        for row in rows
    }


def _average(printed: np.ndarray, counts: Sequence[int], column: str) -> float:
    """Over questions; NaN where a part is."""
    member = tables.MEMBERS[:, list(tables.COLUMNS).index(column)]
    return float(np.average(printed[member], weights=np.array(counts)[member]))
