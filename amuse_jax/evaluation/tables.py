"""Accuracy tables with the columns of the paper's Tables 2-4."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from amuse_jax.music_avqa import Question, vocabulary

# Column -> the question types that it averages over, in the paper's order.
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
# (9, 13) bool: whether a column (second axis) counts the questions of a type (first axis).
MEMBERS = np.array([[kind in kinds for kinds in COLUMNS.values()] for kind in vocabulary.TYPES])

TEMPLATE_FIELDS = ('template', 'questions')  # in a row of per_template; other fields are methods
OTHER_TEMPLATES = 'other templates'

Row = Mapping[str, float]

_TYPE_INDEX = {kind: index for index, kind in enumerate(vocabulary.TYPES)}


def types_of(questions: Sequence[Question]) -> np.ndarray:
    """Return the index into vocabulary.TYPES of every question's type, (n,) int."""
    return np.array([_TYPE_INDEX[q.modality, q.kind] for q in questions], int)


def counts(questions: Sequence[Question]) -> dict[str, int]:
    """Return how many of the questions each column counts."""
    totals = np.bincount(types_of(questions), minlength=len(MEMBERS)) @ MEMBERS
    return dict(zip(COLUMNS, totals.tolist()))


def accuracies(questions: Sequence[Question], is_correct: Sequence[bool]) -> dict[str, float]:
    """Compute one row of the table: the accuracy of every column in per cent.

    Every average is over questions, not over types, as in all published code. A column without a
    question is NaN.
    """
    hits = np.bincount(types_of(questions), np.asarray(is_correct, float), len(MEMBERS)) @ MEMBERS
    return {
        column: 100 * hit / total if total else math.nan
        for (column, total), hit in zip(counts(questions).items(), hits.tolist())
    }


def read_scores(folder: Path) -> dict:
    """Read `scores.json` from an evaluate folder; NaN stands for its empty cells."""
    scores = json.loads((folder / 'scores.json').read_text('utf-8'))

    def with_nan(value):
        if isinstance(value, dict):
            return {name: with_nan(each) for name, each in value.items()}
        if isinstance(value, list):
            return [with_nan(each) for each in value]
        return math.nan if value is None else value

    return scores | {'parts': with_nan(scores['parts'])}


def model_of(part: Mapping) -> str:
    """Return the name of the model in a part of scores.json; its row is the first one."""
    return next(iter(part['rows']))


def per_template(
    questions: Sequence[Question], is_correct: Mapping[str, Sequence[bool]]
) -> list[dict]:
    """Compute the accuracy of every method on every template that occurs.

    Questions whose template is not in vocabulary.TEMPLATES share the last row, OTHER_TEMPLATES.

    Args:
      questions: n questions.
      is_correct: for each method, (n,) whether its answers are right.

    Returns:
      Rows with 'template', 'questions' (their number) and, by method, the accuracy in per cent.
    """
    indices: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        is_known = question.template in vocabulary.TEMPLATES
        indices.setdefault(question.template if is_known else OTHER_TEMPLATES, []).append(index)
    rows = []
    for template in (*vocabulary.TEMPLATES, OTHER_TEMPLATES):
        if template in indices:
            row = {'template': template.strip(), 'questions': len(indices[template])}
            for method, hits in is_correct.items():
                row[method] = 100 * float(np.mean([hits[i] for i in indices[template]]))
            rows.append(row)
    return rows


def with_margins(
    rows: Mapping[str, Row], margins: Mapping[str, Row], label: str
) -> dict[str, Mapping[str, float | str]]:
    """Insert a row of margins, such as '±2.9', after each row that has margins.

    Args:
      rows: the rows by method.
      margins: margins by method, in percentage points.
      label: name of the margins, such as '± 95 %'; their row is named 'METHOD, LABEL'.
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
    """Insert two rows after each row, the bounds of its 95 % intervals, for `as_csv`."""
    result: dict[str, Row] = {}
    for label, row in rows.items():
        result[label] = row
        for index, bound in enumerate(('from', 'to')):
            bounds = {column: intervals[label][column][index] for column in COLUMNS}
            result[f'{label}, 95 % {bound}'] = bounds
    return result


def write(
    folder: Path,
    displayed: Sequence[Mapping[str, Mapping[str, float | str]]],
    csv_rows: Mapping[str, Row],
    notes: Sequence[str],
    figure: str,
) -> str:
    """Write table.{txt,md,csv}.

    Args:
      folder: folder to write to.
      displayed: the tables of table.txt and table.md, one or more.
      csv_rows: the rows of table.csv.
      notes: explanations of the tables, one paragraph each.
      figure: path, from `folder`, of the figure below the tables of table.md.

    Returns:
      The text of table.txt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = '\n\n'.join([*map(as_text, displayed), *notes])
    page = '\n\n'.join([*map(as_markdown, displayed), *notes, f'![accuracy per type]({figure})'])
    (folder / 'table.txt').write_text(text + '\n', 'utf-8')
    (folder / 'table.md').write_text(page + '\n', 'utf-8')
    (folder / 'table.csv').write_text(as_csv(csv_rows), 'utf-8')
    return text


def write_templates(folder: Path, rows: Sequence[Mapping]) -> None:
    """Write the rows of `per_template` to templates.{txt,md,csv}."""
    # Markdown would treat '<Object>' as a tag and not show it.
    escaped = [row | {'template': row['template'].replace('<', r'\<')} for row in rows]
    for ending, form, table in (('txt', 'simple', rows), ('md', 'github', escaped)):
        text = tabulate(table, headers='keys', tablefmt=form, floatfmt='.1f')
        (folder / f'templates.{ending}').write_text(text + '\n', 'utf-8')
    with open(folder / 'templates.csv', 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(f'{v:.2f}' if isinstance(v, float) else v for v in row.values())


def as_text(rows: Mapping[str, Mapping[str, float | str]]) -> str:
    """Format rows by method for a terminal; a cell is a number in per cent or a text."""
    return _tabulated(rows, 'simple')


def as_markdown(rows: Mapping[str, Mapping[str, float | str]]) -> str:
    """Format rows by method as a Markdown table; a cell is a number in per cent or a text."""
    return _tabulated(rows, 'github')


def as_csv(rows: Mapping[str, Row]) -> str:
    """Format rows by method as CSV, with two decimals; NaN becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['method', *COLUMNS])
    for method, row in rows.items():
        writer.writerow([method, *(_number(row[column], '') for column in COLUMNS)])
    return text.getvalue()


def _tabulated(rows: Mapping[str, Mapping[str, float | str]], form: str) -> str:
    """Format rows that all have the columns of the first one, most often COLUMNS."""
    columns = list(next(iter(rows.values())))
    cells = [[method, *(_cell(row[column]) for column in columns)] for method, row in rows.items()]
    return tabulate(
        cells,
        headers=['', *columns],
        tablefmt=form,
        disable_numparse=True,
        colalign=('left', *('right' if column in COLUMNS else 'left' for column in columns)),
    )


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else _number(value, '-')


def _number(value: float, absent: str) -> str:
    return absent if math.isnan(value) else f'{value:.2f}'
