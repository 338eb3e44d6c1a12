"""The rows of the paper's Tables 2-4, for Amuse and its peers, as printed (published.csv).

Some printed averages do not follow from the numbers that they average. In Table 2, the averages of
AVST and DG-SCT are over questions, as in `tables.accuracies`; those of LSTTA are means over types.
The audio averages of Table 3, of Amuse and of its ablations weigh counting with 0.527 and comparing
with 0.473, although the share of counting questions is 0.63 and 0.68 in the two test sets.
`inconsistent_averages` finds such cells.
"""

import csv
import dataclasses
import functools
import math
from collections.abc import Sequence
from importlib import resources

import numpy as np

from amuse_jax.evaluation import tables, test_sets

MARK = '*'  # stands after an inconsistent average
_TOLERANCE = 0.05  # percentage points; rounding of the parts explains only 0.01


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed row.

    Attributes:
      table: number of the table in the paper.
      test_set: test set of the row, as in TestSet.published.
      method: name of the method, with its authors.
      source: where the row is printed.
      row: accuracies in per cent; NaN if nothing is printed.
    """

    table: int
    test_set: str
    method: str
    source: str
    row: dict[str, float]


@functools.cache
def read() -> tuple[Published, ...]:
    """Return all rows, in the paper's order."""
    text = resources.files('amuse_jax.evaluation').joinpath('published.csv').read_text('utf-8')
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
    """Return the rows of Table 2 for 'v1' and of Table 3 for 'v2'; [] for other test sets."""
    return [row for row in read() if row.test_set == test_set and row.table in (2, 3)]


def ablations(test_set: str) -> list[Published]:
    """Return the rows of Table 4 for 'v1'; [] for other test sets."""
    return [row for row in read() if row.test_set == test_set and row.table == 4]


def inconsistent_averages(row: Published) -> set[str]:
    """Return the columns whose average does not follow from the row's accuracies per type.

    These averages differ by more than 0.05 percentage points from the average over the questions of
    the test set. The test set of v1 has two versions; the one that fits the row better is taken.
    """
    printed = np.array([row.row[column] for column in tables.TYPE_COLUMNS])
    candidates = [known.counts for known in test_sets.KNOWN if known.published == row.test_set]
    inconsistent = [
        {
            column
            for column in tables.AVERAGES
            if abs(_average(printed, counts, column) - row.row[column]) > _TOLERANCE
        }
        for counts in candidates
    ]
    return min(inconsistent, key=len)


def marked(rows: Sequence[Published]) -> dict[str, dict[str, float | str]]:
    """Return the rows by method for a table, with MARK after every inconsistent average."""
    return {
        row.method: {
            column: f'{value:.2f}{MARK}' if column in inconsistent_averages(row) else value
            for column, value in row.row.items()
        }
        for row in rows
    }


def _average(printed: np.ndarray, counts: Sequence[int], column: str) -> float:
    """Average over questions; return NaN if one of the parts is NaN."""
    member = tables.MEMBERS[:, list(tables.COLUMNS).index(column)]
    return float(np.average(printed[member], weights=np.array(counts)[member]))
