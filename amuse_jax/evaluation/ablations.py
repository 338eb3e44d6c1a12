"""Table 4 of the paper: the whole model, and four models without one of its parts."""

from collections.abc import Mapping
from pathlib import Path

from amuse_jax.evaluation import bootstrap, figures, published, report, tables

# The part that is left out -> name of the row in the paper.
ROWS = {
    'encoder': 'w/o M.i.e.',
    'rhythm': 'w/o Rhy.',
    'sources': 'w/o Src.',
    'rois': 'w/o RoIs',
    '': 'Amuse',
}


def write(folder: Path, evaluated: Mapping[str, Path]) -> str:
    """Write the rows of all variants to table.{txt,md,csv} and accuracy.png.

    If the test set is the paper's, they also show the paper's rows.

    Args:
      folder: folder to write to.
      evaluated: the finished evaluate folder for each part that is left out; '' is the whole model.

    Returns:
      The table for a terminal.
    """
    scores = {part: tables.read_scores(evaluated[part]) for part in ROWS}
    tests = {name: scores[part]['parts']['test'] for part, name in ROWS.items()}
    rows = {name: test['rows']['Amuse'] for name, test in tests.items()}
    intervals = {name: test['intervals']['Amuse'] for name, test in tests.items()}
    printed = published.ablations(scores['']['test_set']['published'])
    margins = bootstrap.margins(intervals)
    printed_rows = published.with_verdicts(printed)
    displayed = tables.with_margins(rows, margins, report.MARGIN) | published.marked(printed)
    csv_rows = tables.with_bounds(rows, intervals) | printed_rows
    notes = [report.INTERVAL_NOTE, *published.notes(printed)]
    text = tables.write(folder, [displayed], csv_rows, notes, 'accuracy.png')
    figures.accuracy_bars(rows, folder / 'accuracy.png', margins, printed_rows)
    return f'\n{text}\n\ntable: {folder / "table.md"}'
