"""Table 4: the whole model beside the four without one of its parts."""

import json
from collections.abc import Mapping
from pathlib import Path

from amuse_jax.evaluation import bootstrap, figures, published, report, tables

# The paper's names of its rows.
ROWS = {
    'encoder': 'w/o M.i.e.',
    'rhythm': 'w/o Rhy.',
    'sources': 'w/o Src.',
    'rois': 'w/o RoIs',
    '': 'Amuse',
}


def write(folder: Path, evaluated: Mapping[str, Path]) -> str:
    """Collects the variants' rows into table.{txt,md,csv} and a figure.

    The paper's rows stand beside them where the test set is its.

    Args:
      folder: where they go.
      evaluated: the finished evaluate folder of each left-out part; '' for the whole model.

    Returns:
      The table for a terminal.
    """
    scores = {part: json.loads((evaluated[part] / 'scores.json').read_text()) for part in ROWS}
    tests = {name: scores[part]['parts']['test'] for part, name in ROWS.items()}
    rows = {name: test['rows']['Amuse'] for name, test in tests.items()}
    intervals = {name: test['intervals']['Amuse'] for name, test in tests.items()}
    printed = published.ablations(scores['']['test_set']['published'])
    margins = bootstrap.margins(intervals)
    beside = {row.method: row.row for row in printed}
    shown = tables.with_margins(rows, margins, report.MARGIN) | published.marked(printed)
    csv_rows = tables.with_bounds(rows, intervals) | beside
    notes = [report.INTERVAL_NOTE, *([report.published_note(printed)] if printed else [])]
    text = tables.write(folder, [shown], csv_rows, notes, 'accuracy.png')
    figures.accuracy_bars(rows, folder / 'accuracy.png', margins, beside)
    return f'\n{text}\n\ntable: {folder / "table.md"}'
