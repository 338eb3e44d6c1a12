"""Published results: the paper's Tables 2-4 and later systems, as printed (published.csv).

No number is corrected. Instead each row has a verdict, which says what of it may be compared, and a
reason, which the tables print. Some verdicts rest on arithmetic that tests repeat: an accuracy over
n questions is a whole number of n, and an average over questions follows from its parts.

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
import string
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from amuse_jax.evaluation import tables, test_sets
from amuse_jax.music_avqa import REPHRASED, published_files

MARK = '*'  # stands after an inconsistent average
_TOLERANCE = 0.05  # percentage points; rounding of the parts explains only 0.01
# Verdict -> what it says about a row.
VERDICTS = {
    'sound': 'its numbers follow from the questions of the test set',
    'averages agree': 'its overall accuracy follows from its groups, and nothing else was checked',
    'unchecked': 'nothing is printed that it could be checked with',
    'types only': 'its accuracies per type may be compared, its averages may not',
    'overall only': 'its overall accuracy may be compared, nothing else may',
    'not comparable': 'it is a result on other questions',
    'doubtful': 'something speaks against it, but nothing refutes it',
}
MUSIC_AVQA_R = 'R'  # the rephrased questions, as a test set
OTHER_COLUMNS = ('A Avg', 'V Avg', 'AV Avg', 'Avg')  # later systems print little more


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed row.

    Attributes:
      table: number of the table in the paper; 0 for a row of another paper.
      test_set: test set of the row, as in TestSet.published, or MUSIC_AVQA_R.
      method: name of the method, with its authors.
      source: where the row is printed.
      origin: where `source` has it from, or 'not stated'; '' if it is its own result.
      verdict: a key of VERDICTS.
      reason: sentences about the row, which stand below the table; '' for none.
      language_model: whether it contains a large language model: yes, no or ?.
      fine_tuned: whether it was trained on MUSIC-AVQA: yes, no or ?.
      row: accuracies in per cent; NaN if nothing is printed.
    """

    table: int
    test_set: str
    method: str
    source: str
    origin: str
    verdict: str
    reason: str
    language_model: str
    fine_tuned: str
    row: dict[str, float]


@functools.cache
def read() -> tuple[Published, ...]:
    """Return all rows: first those of the paper, in its order."""
    text = resources.files('amuse_jax.evaluation').joinpath('published.csv').read_text('utf-8')
    names = [field.name for field in dataclasses.fields(Published)][1:-1]
    return tuple(
        Published(
            table=int(line['table'] or 0),
            **{name: line[name] for name in names},
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


def others(test_set: str) -> list[Published]:
    """Return the rows that other papers print for a test set; [] for '' and unknown test sets."""
    return [row for row in read() if row.test_set == test_set and not row.table]


def others_asked(scores: Mapping) -> list[Published]:
    """Return the rows of `others` for the questions that a model was asked.

    These are the test set and, if nearly all of MUSIC-AVQA-R was asked, its questions.

    Args:
      scores: content of scores.json.
    """
    part = scores['parts'].get(REPHRASED)
    least = (1 - test_sets.MAX_MISSING) * published_files.REPHRASED_ROWS
    is_whole = part is not None and part['questions']['Avg'] >= least
    return others(scores['test_set']['published']) + (others(MUSIC_AVQA_R) if is_whole else [])


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
    return min(inconsistent, key=len, default=set())


def marked(rows: Sequence[Published]) -> dict[str, dict[str, float | str]]:
    """Return the rows by method for a table.

    A mark such as '[a]' stands after each method about which `notes` has a sentence, and MARK after
    every inconsistent average.
    """
    return {
        _label(row) + (f' [{mark}]' if mark else ''): {
            column: f'{value:.2f}{MARK}' if column in inconsistent_averages(row) else value
            for column, value in row.row.items()
        }
        for row, mark in zip(rows, _marks(rows))
    }


def other_table(rows: Sequence[Published]) -> dict[str, dict[str, float | str]]:
    """Return rows of `others` for a table of their own: groups, verdict, source, what they are."""
    return {
        method: {column: cells[column] for column in OTHER_COLUMNS}
        | {
            'verdict': row.verdict,
            'language model': row.language_model,
            'trained on it': row.fine_tuned,
            'source': row.source,
        }
        for row, (method, cells) in zip(rows, marked(rows).items())
    }


def with_verdicts(rows: Sequence[Published]) -> dict[str, dict[str, float]]:
    """Return the rows by 'METHOD, VERDICT', for a file or a figure that has no notes."""
    return {f'{_label(row)}, {row.verdict}': row.row for row in rows}


def notes(rows: Sequence[Published]) -> list[str]:
    """Return the paragraphs below a table of rows of the paper; [] if there is no row."""
    if not rows:
        return []
    sources = ' and '.join(dict.fromkeys(row.source for row in rows))
    explained = {
        mark: f'[{mark}] {row.verdict.capitalize()}: {VERDICTS[row.verdict]}. {row.reason}'
        for row, mark in zip(rows, _marks(rows))
        if mark
    }
    return [
        f'Rows with authors are as printed in {sources}; nothing in them is corrected. {MARK}: an '
        "average that is not the one over the test set's questions.",
        *explained.values(),
    ]


def other_notes(rows: Sequence[Published]) -> list[str]:
    """Return the paragraphs below `other_table`; [] if there is no row."""
    if not rows:
        return []
    verdicts = [name for name in VERDICTS if any(row.verdict == name for row in rows)]
    meanings = '; '.join(f'{name}: {VERDICTS[name]}' for name in verdicts)
    explained = {mark: f'[{mark}] {row.reason}' for row, mark in zip(rows, _marks(rows)) if mark}
    return [
        'Other published systems, as their sources print them; nothing is corrected. "Trained on '
        f'it": on questions of MUSIC-AVQA. {meanings[0].upper()}{meanings[1:]}.',
        *explained.values(),
    ]


def _label(row: Published) -> str:
    """Return the method, and what it was asked, as in the rows of one's own models."""
    return f'{row.method}: rephrased' if row.test_set == MUSIC_AVQA_R else row.method


def _marks(rows: Sequence[Published]) -> list[str]:
    """Return a mark for each row with a reason, else ''; rows with the same reason share it.

    Rows of the paper have letters, all others have numbers.
    """
    reasons = list(dict.fromkeys(row.reason for row in rows if row.reason))
    return [
        ''
        if not row.reason
        else string.ascii_lowercase[reasons.index(row.reason)]
        if row.table
        else str(reasons.index(row.reason) + 1)
        for row in rows
    ]


def _average(printed: np.ndarray, counts: Sequence[int], column: str) -> float:
    """Average over questions; return NaN if one of the parts is NaN."""
    member = tables.MEMBERS[:, list(tables.COLUMNS).index(column)]
    return float(np.average(printed[member], weights=np.array(counts)[member]))
