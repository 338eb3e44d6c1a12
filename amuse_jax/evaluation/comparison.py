"""A table of several models that were evaluated on the same test questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from amuse_jax.evaluation import bootstrap, figures, published, report, tables


def write(
    folder: Path,
    scores: Mapping[str, Mapping],
    printed: Sequence[published.Published],
    baselines: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """Write the rows of all models to table.{txt,md,csv} and accuracy.png.

    A second table has the other parts of the test, such as the rephrased questions and their head
    and tail.

    Args:
      folder: folder to write to.
      scores: content of scores.json by the name of the model's row.
      printed: published rows for the same test set.
      baselines: methods of the first scores.json that get a row too.
      notes: paragraphs below the table.

    Returns:
      The table for a terminal.
    """
    rows, intervals = (_own(scores, ['test'], key) for key in ('rows', 'intervals'))
    test = next(iter(scores.values()))['parts']['test']
    for method in baselines:
        rows[method], intervals[method] = test['rows'][method], test['intervals'][method]
    margins = bootstrap.margins(intervals)
    printed_rows = published.with_verdicts(printed)
    displayed = [tables.with_margins(rows, margins, report.MARGIN) | published.marked(printed)]
    csv_rows = tables.with_bounds(rows, intervals)
    parts = dict.fromkeys(name for each in scores.values() for name in each['parts'])
    del parts['test']
    if others := _own(scores, list(parts), 'rows'):
        their_intervals = _own(scores, list(parts), 'intervals')
        their_margins = bootstrap.margins(their_intervals)
        displayed.append(tables.with_margins(others, their_margins, report.MARGIN))
        csv_rows |= tables.with_bounds(others, their_intervals)
    paragraphs = [report.INTERVAL_NOTE, *notes, *published.notes(printed)]
    text = tables.write(folder, displayed, csv_rows | printed_rows, paragraphs, 'accuracy.png')
    figures.accuracy_bars(rows, folder / 'accuracy.png', margins, printed_rows)
    return f'\n{text}\n\ntable: {folder / "table.md"}'


def _own(scores: Mapping[str, Mapping], parts: Sequence[str], key: str) -> dict[str, Mapping]:
    """Collect the 'rows' or 'intervals' of every model from the parts of the test that it has.

    The key is 'MODEL' for the test questions and 'MODEL: PART' for another part.
    """
    return {
        name if part == 'test' else f'{name}: {part}': each['parts'][part][key][
            tables.model_of(each['parts'][part])
        ]
        for part in parts
        for name, each in scores.items()
        if part in each['parts']
    }
