"""Accuracy tables with the columns of the paper's Tables 2-4."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from amuse_jax.music_avqa import Question, vocabulary

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
AVERAGES = tuple(name for name, kinds in COLUMNS.items() if len(kinds) > 1)
# (9, 13): whether a column counts a type's questions.
MEMBERS = np.array([[kind in kinds for kinds in COLUMNS.values()] for kind in vocabulary.TYPES])

TEMPLATE_FIELDS = ('template', 'questions')  # of a row of per_template; the others are methods
OTHER_TEMPLATES = 'other templates'

Row = Mapping[str, float]

_TYPE_INDEX = {kind: index for index, kind in enumerate(vocabulary.TYPES)}


def types_of(questions: Sequence[Question]) -> np.ndarray:
    """(n,) int, every question's index into vocabulary.TYPES."""
    return np.array([_TYPE_INDEX[q.modality, q.kind] for q in questions], int)


def counts(questions: Sequence[Question]) -> dict[str, int]:
    """How many of the questions each column counts."""
    asked = np.bincount(types_of(questions), minlength=len(MEMBERS)) @ MEMBERS
    return dict(zip(COLUMNS, asked.tolist()))


def accuracies(questions: Sequence[Question], is_correct: Sequence[bool]) -> dict[str, float]:
    """One row: per column the share of its questions answered correctly, in per cent.

    Every average counts questions, not types, as all published code does. A column without a
    question is NaN.
    """
    hits = np.bincount(types_of(questions), np.asarray(is_correct, float), len(MEMBERS)) @ MEMBERS
    return {
        column: 100 * hit / asked if asked else math.nan
        for (column, asked), hit in zip(counts(questions).items(), hits.tolist())
    }


def per_template(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]]
) -> list[dict]:
    """Accuracy of every method on every template that occurs, in per cent, with the count.

    Questions of none of vocabulary.TEMPLATES share the last row, OTHER_TEMPLATES.
    """
    places: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        is_known = question.template in vocabulary.TEMPLATES
        places.setdefault(question.template if is_known else OTHER_TEMPLATES, []).append(index)
    rows = []
    for template in (*vocabulary.TEMPLATES, OTHER_TEMPLATES):
        if template in places:
            row = {'template': template.strip(), 'questions': len(places[template])}
            for method, hits in is_correct.items():
                row[method] = 100 * float(np.mean([hits[i] for i in places[template]]))
            rows.append(row)
    return rows


def with_margins(
    rows: Mapping[str, Row], margins: Mapping[str, Row], label: str
) -> dict[str, Mapping[str, float | str]]:
    """The rows, each followed by its margins where there are any, as '±2.9'.

    Args:
      rows: by method.
      margins: by method, in points of accuracy.
      label: what the margins are, such as '± 95 %'; their row is named 'METHOD, LABEL'.
    """
    result: dict[str, Mapping[str, float | str]] = {}
    for method, row in rows.items():
        result[method] = row
        if method in margins:
            cells = {
                column: '-' if math.isnan(margin) else f'±{margin:.1f}'
                for column, margin in margins[method].items()
            }
            result[f'{method}, {label}'] = cells
    return result


def with_bounds(
    rows: Mapping[str, Row], intervals: Mapping[str, Mapping[str, tuple[float, float]]]
) -> dict[str, Row]:
    """The rows, each followed by the bounds of its 95 % intervals, for `as_csv`."""
    result: dict[str, Row] = {}
    for label, row in rows.items():
        result[label] = row
        for index, bound in enumerate(('from', 'to')):
            bounds = {column: intervals[label][column][index] for column in COLUMNS}
            result[f'{label}, 95 % {bound}'] = bounds
    return result


def write(
    folder: Path,
    shown: Sequence[Mapping[str, Mapping[str, float | str]]],
    csv_rows: Mapping[str, Row],
    notes: Sequence[str],
    picture: str,
) -> str:
    """Writes table.{txt,md,csv}.

    Args:
      folder: where they go.
      shown: one table or more, for people.
      csv_rows: of the one for other programs.
      notes: what has to be known of the tables, a paragraph each.
      picture: that table.md shows below; its path from `folder`.

    Returns:
      What is in table.txt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = '\n\n'.join([*map(as_text, shown), *notes])
    page = '\n\n'.join([*map(as_markdown, shown), *notes, f'![accuracy per type]({picture})'])
    (folder / 'table.txt').write_text(text + '\n')
    (folder / 'table.md').write_text(page + '\n')
    (folder / 'table.csv').write_text(as_csv(csv_rows))
    return text


def write_templates(folder: Path, rows: Sequence[Mapping]) -> None:
    """Writes what `per_template` returns to templates.{txt,md,csv}."""
    # In a page, '<Object>' would be a tag, and unseen.
    escaped = [row | {'template': row['template'].replace('<', r'\<')} for row in rows]
    for ending, form, shown in (('txt', 'simple', rows), ('md', 'github', escaped)):
        text = tabulate(shown, headers='keys', tablefmt=form, floatfmt='.1f')
        (folder / f'templates.{ending}').write_text(text + '\n')
    with open(folder / 'templates.csv', 'w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(f'{v:.2f}' if isinstance(v, float) else v for v in row.values())


def as_text(rows: Mapping[str, Mapping[str, float | str]]) -> str:
    """The rows, keyed by method, for a terminal; a cell is in per cent, or text as it stands."""
    return _tabulated(rows, 'simple')


def as_markdown(rows: Mapping[str, Mapping[str, float | str]]) -> str:
    return _tabulated(rows, 'github')


def as_csv(rows: Mapping[str, Row]) -> str:
    """The rows with two decimals; NaN is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['method', *COLUMNS])
    for method, row in rows.items():
        writer.writerow([method, *(_number(row[column], '') for column in COLUMNS)])
    return text.getvalue()


def _tabulated(rows: Mapping[str, Mapping[str, float | str]], form: str) -> str:
    cells = [[method, *(_cell(row[column]) for column in COLUMNS)] for method, row in rows.items()]
    return tabulate(
        cells,
        headers=['', *COLUMNS],
        tablefmt=form,
        disable_numparse=True,
        colalign=('left', *['right'] * len(COLUMNS)),
    )


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else _number(value, '-')


def _number(value: float, absent: str) -> str:
    return absent if math.isnan(value) else f'{value:.2f}'
