"""Accuracy tables with the columns of the paper's Tables 2-4."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from amuse_jax.data import vocabulary
from amuse_jax.data.music_avqa import Question

# Column -> the question types it averages over, in the paper's order.
COLUMNS = {
    'A Count': (('Audio', 'Counting'),),
    'A Comp': (('Audio', 'Comparative'),),
    'A Avg': (('Audio', 'Counting'), ('Audio', 'Comparative')),
    'V Count': (('Visual', 'Counting'),),
    'V Local': (('Visual', 'Location'),),
    'V Avg': (('Visual', 'Counting'), ('Visual', 'Location')),
    'AV Exist': (('Audio-Visual', 'Existential'),),
    'AV Count': (('Audio-Visual', 'Counting'),),
    'AV Local': (('Audio-Visual', 'Location'),),
    'AV Comp': (('Audio-Visual', 'Comparative'),),
    'AV Temp': (('Audio-Visual', 'Temporal'),),
    'AV Avg': tuple(kind for kind in vocabulary.TYPES if kind[0] == 'Audio-Visual'),
    'Avg': vocabulary.TYPES,
}
TYPE_COLUMNS = tuple(name for name, kinds in COLUMNS.items() if len(kinds) == 1)


def accuracies(questions: Sequence[Question], is_correct: Sequence[bool]) -> dict[str, float]:
    """One row: per column the share of its questions answered correctly, in per cent.

    Every average counts questions, not types, as all published code does. A column without a
    question is NaN.
    """
    row = {}
    for column, kinds in COLUMNS.items():
        hits = [hit for q, hit in zip(questions, is_correct) if (q.modality, q.kind) in kinds]
        row[column] = 100 * sum(hits) / len(hits) if hits else math.nan
    return row


def per_template(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]]
) -> list[dict]:
    """Accuracy of every method on every template that occurs, in per cent, with the count."""
    rows = []
    for template in vocabulary.TEMPLATES:
        places = [i for i, question in enumerate(questions) if question.template == template]
        if places:
            row = {'template': template.strip(), 'questions': len(places)}
            for method, hits in is_correct.items():
                row[method] = 100 * sum(hits[i] for i in places) / len(places)
            rows.append(row)
    return rows


def as_text(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The rows, keyed by method, for a terminal."""
    return tabulate(_cells(rows), headers=['', *COLUMNS], tablefmt='simple', floatfmt='.2f')


def as_markdown(rows: Mapping[str, Mapping[str, float]]) -> str:
    return tabulate(_cells(rows), headers=['', *COLUMNS], tablefmt='github', floatfmt='.2f')


def templates_as_markdown(rows: Sequence[Mapping]) -> str:
    """What `per_template` returns."""
    return tabulate(rows, headers='keys', tablefmt='github', floatfmt='.1f')


def as_csv(rows: Mapping[str, Mapping[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['method', *COLUMNS])
    writer.writerows(_cells(rows))
    return text.getvalue()


def _cells(rows: Mapping[str, Mapping[str, float]]) -> list[list]:
    return [
        [method, *(round(row[column], 2) for column in COLUMNS)] for method, row in rows.items()
    ]
