"""Tables of the quality of the annotators, of the detector and of the universal encoder."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

from tabulate import tabulate

NOT_MEASURED = '-'


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
      title: heading of the table.
      columns: names of the columns; the first column names the rows.
      rows: the cells of every row.
      notes: sentences under the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]

    def as_markdown(self) -> str:
        """Format the table for Markdown, without its title and notes."""
        return tabulate(
            self.rows,
            headers=self.columns,
            tablefmt='github',
            disable_numparse=True,
            colalign=('left', *['right'] * (len(self.columns) - 1)),
        )


def make_tables(summaries: Mapping[str, Mapping]) -> list[Table]:
    """Make a table from the manifest's summary of each of the stages annotate, rois and pretrain.

    A stage whose summary an earlier version wrote, without these values, has no table.

    Args:
      summaries: summaries by name of the stage.
    """
    tables = []
    for name, make in (('annotate', annotators), ('pretrain', encoder), ('rois', detector)):
        with contextlib.suppress(KeyError):
            tables.append(make(summaries[name]))
    return tables


def annotators(summary: Mapping) -> Table:
    """Return found and true labels of segments, with precision and recall where truth is known."""
    rows = []
    for name, label in (('rhythm', 'tempo changes'), ('sources', 'sources that sound')):
        if name in summary:
            score = summary[name]
            counts = [f'{score[key]:,}' for key in ('found', 'true', 'both')]
            rows.append([label, *counts, *(_share(score[key]) for key in ('precision', 'recall'))])
    if rows:
        videos = f'{summary["performances"]:,} videos'
        notes = [f'Counted over the segments of {videos} whose truth is known.']
    else:
        found = f'{summary["segments_with_rhythm_change"]:,}'
        rows = [['tempo changes', found, *[NOT_MEASURED] * 4]]
        notes = [f'The truth of these {summary["records"]:,} videos is not known.']
    columns = ('label', 'found', 'true', 'found and true', 'precision, %', 'recall, %')
    return Table('Annotators', columns, rows, notes)


def detector(summary: Mapping) -> Table:
    """Return the detector's mAP50 and the number of regions, of all classes and of each."""
    precisions, regions = summary['map50_of_class'], summary['regions_of_class']
    rows = [['all classes', _share(summary['map50']), f'{summary["regions"]:,}']]
    rows += [
        [name.replace('_', ' '), _share(precisions.get(name)), f'{regions.get(name, 0):,}']
        for name in sorted(precisions.keys() | regions.keys())
    ]
    pictures = summary['trained_on']
    origin = f'trained on {pictures:,} pictures' if pictures else 'taken from given weights'
    measured = 'on the videos of the val split'
    notes = [
        f'The detector was {origin}. Regions are those in {summary["segments"]:,} segments of '
        f'{summary["records"]:,} videos.',
        f'mAP50 is measured {measured}; {NOT_MEASURED}: no box of the class there.',
    ]
    if summary['unreadable']:
        notes.append(f'{len(summary["unreadable"]):,} videos could not be read.')
    return Table('Detector', ('class', 'mAP50, %', 'regions'), rows, notes)


def encoder(summary: Mapping) -> Table:
    """Return the errors of the universal encoder's predicted labels by split."""
    rows = []
    for split in ('train', 'val'):
        if split in summary:
            part = summary[split]
            errors = [f'{part[name]:.3f}' for name in ('rhythm_mse', 'sources_mse')]
            rows.append([split, *errors, _share(part['sources_average_precision'])])
    columns = (
        'split', 'rhythm, mean squared error', 'sources, mean squared error',
        'sources, average precision, %',
    )  # fmt: skip
    size, steps = (f'{summary[name]:,}' for name in ('parameters', 'steps'))
    notes = [f'It has {size} parameters and was trained for {steps} steps.']
    return Table('Universal encoder', columns, rows, notes)


def _share(value: float | None) -> str:
    return NOT_MEASURED if value is None else f'{100 * value:.1f}'
