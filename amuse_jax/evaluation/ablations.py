"""Table 4 of the paper: the whole model, and four models without one of its parts."""

from collections.abc import Mapping, Sequence
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

    If the test set is the paper's, they also show the paper's rows. A second table has the other
    parts of the test, such as the rephrased questions and their head and tail.

    Args:
      folder: folder to write to.
      evaluated: the finished evaluate folder for each part that is left out; '' is the whole model.

    Returns:
      The table for a terminal.
    """
    scores = {ROWS[part]: tables.read_scores(evaluated[part]) for part in ROWS}
    rows, intervals = (_own(scores, ['test'], key) for key in ('rows', 'intervals'))
    printed = published.ablations(scores[ROWS['']]['test_set']['published'])
    margins = bootstrap.margins(intervals)
    printed_rows = published.with_verdicts(printed)
    displayed = [tables.with_margins(rows, margins, report.MARGIN) | published.marked(printed)]
    csv_rows = tables.with_bounds(rows, intervals)
    parts = [name for name in scores[ROWS['']]['parts'] if name != 'test']
    if others := _own(scores, parts, 'rows'):
        their_intervals = _own(scores, parts, 'intervals')
        their_margins = bootstrap.margins(their_intervals)
        displayed.append(tables.with_margins(others, their_margins, report.MARGIN))
        csv_rows |= tables.with_bounds(others, their_intervals)
    notes = [report.INTERVAL_NOTE, *published.notes(printed)]
    text = tables.write(folder, displayed, csv_rows | printed_rows, notes, 'accuracy.png')
    figures.accuracy_bars(rows, folder / 'accuracy.png', margins, printed_rows)
    return f'\n{text}\n\ntable: {folder / "table.md"}'


def _own(scores: Mapping[str, Mapping], parts: Sequence[str], key: str) -> dict[str, Mapping]:
    """Collect the 'rows' or 'intervals' of every variant from the parts of the test that it has.

    The key is 'VARIANT' for the test questions and 'VARIANT: PART' for another part.
    """
    return {
        variant if part == 'test' else f'{variant}: {part}': each['parts'][part][key]['Amuse']
        for part in parts
        for variant, each in scores.items()
        if part in each['parts']
    }
