"""Mean and deviation over runs that differ in their seeds alone."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from amuse_jax.errors import StageError
from amuse_jax.evaluation import figures, published, report, tables
from amuse_jax.system.manifest import changes, read_manifest

MARGIN = '± deviation'


@dataclasses.dataclass(frozen=True)
class Run:
    """What an evaluate stage left.

    Attributes:
      path: as it was given.
      scores: its scores.json.
    """

    path: Path
    scores: Mapping

    @property
    def rows(self) -> Mapping[str, tables.Row]:
        """Of all parts, as report.labelled calls them."""
        return report.labelled(self.scores['parts'], 'rows')


@dataclasses.dataclass(frozen=True)
class Summary:
    """Over all runs, by row of the parts that all of them have, and by column.

    Attributes:
      means: in per cent.
      deviations: standard deviations of a run, from n - 1, in points.
      margins: half of a run's 95 % interval over test videos, mean of the runs, in points; of
        Amuse's rows.
    """

    means: dict[str, dict[str, float]]
    deviations: dict[str, dict[str, float]]
    margins: dict[str, dict[str, float]]


def read(path: Path) -> Run:
    """A run's scores.

    Raises:
      StageError: it has no finished evaluate stage.
    """
    folder = path / 'evaluate' if (path / 'evaluate').is_dir() else path
    if read_manifest(folder) is None or not (folder / 'scores.json').is_file():
        raise StageError(
            f'{path} has no finished evaluate stage; expected the --workdir of a finished run, or '
            'an evaluate folder in it'
        )
    return Run(path, json.loads((folder / 'scores.json').read_text()))


def summarise(runs: Sequence[Run]) -> Summary:
    """Mean and deviation of every cell.

    Raises:
      StageError: two are one run, or differ in more than seeds, or answer other test sets.
    """
    _check(runs)
    rows = [run.rows for run in runs]
    margins = [report.own_margins(run.scores['parts']) for run in runs]
    return Summary(
        _over(rows, np.mean),
        _over(rows, functools.partial(np.std, ddof=1)),
        _over(margins, np.mean),
    )


def _over(
    runs: Sequence[Mapping[str, tables.Row]], statistic: Callable[[list[float]], np.floating]
) -> dict[str, dict[str, float]]:
    """A statistic of every cell of the rows that all runs have."""
    shared = [label for label in runs[0] if all(label in rows for rows in runs)]
    return {
        label: {
            column: float(statistic([rows[label][column] for rows in runs]))
            for column in tables.COLUMNS
        }
        for label in shared
    }


def write(folder: Path, runs: Sequence[Run]) -> str:
    """Writes table.{txt,md,csv} and accuracy.png.

    Returns:
      The table for a terminal.

    Raises:
      StageError: as summarise.
    """
    summary = summarise(runs)
    test_set = runs[0].scores['test_set']
    peers = published.methods(test_set['published'])
    beside = {row.method: row.row for row in peers}
    main = {label: summary.means[label] for label in runs[0].scores['parts']['test']['rows']}
    parts = {label: row for label, row in summary.means.items() if label not in main}
    shown = [_shown(main, summary) | published.marked(peers)]
    shown += [_shown(parts, summary)] if parts else []
    notes = [
        f'Mean and standard deviation over {len(runs)} runs'
        + (f' on {test_set["name"]}' if test_set['name'] else '')
        + f'; overall accuracy of Amuse in each: {_each(runs)}.',
        f"{report.INTERVAL_NOTE} Here it is the mean of the runs' own.",
        *([report.published_note(peers)] if peers else []),
    ]
    text = tables.write(folder, shown, _csv_rows(runs, summary) | beside, notes, 'accuracy.png')
    figures.accuracy_bars(main, folder / 'accuracy.png', summary.deviations, beside)
    return f'\n{text}\n\ntable: {folder / "table.md"}'


def _shown(
    rows: Mapping[str, tables.Row], summary: Summary
) -> dict[str, Mapping[str, float | str]]:
    """The rows, each followed by its margins and its deviations."""
    with_deviations = tables.with_margins(rows, summary.deviations, MARGIN)
    return tables.with_margins(with_deviations, summary.margins, report.MARGIN)


def _csv_rows(runs: Sequence[Run], summary: Summary) -> dict[str, tables.Row]:
    """Means, deviations, margins, and every run's own rows."""
    result: dict[str, tables.Row] = {}
    for label, row in summary.means.items():
        result |= {label: row, f'{label}, deviation': summary.deviations[label]}
        if label in summary.margins:
            result[f'{label}, {report.MARGIN}'] = summary.margins[label]
        result |= {f'{label}: {run.path}': run.rows[label] for run in runs}
    return result


def _each(runs: Sequence[Run]) -> str:
    return ', '.join(f'{run.rows["Amuse"]["Avg"]:.2f} ({run.path})' for run in runs)


def _check(runs: Sequence[Run]) -> None:
    first, trained = runs[0], set()
    for run in runs:
        model = run.scores['model']
        if model['fingerprint'] in trained:
            raise StageError(
                f'{run.path} is one of the other runs over again (the same settings and seeds); '
                'expected runs with seeds of their own (--config.seed=S)'
            )
        trained.add(model['fingerprint'])
        changed = changes(
            *(_without_seeds(each.scores['model']['settings']) for each in (first, run))
        )
        if changed:
            raise StageError(
                f'{run.path} was made otherwise than {first.path} ({changed}); expected runs that '
                'differ in their seeds alone'
            )
        here, there = (each.scores['test_set']['name'] for each in (run, first))
        if here != there:
            raise StageError(
                f'{run.path} answers {here or "a test set of its own"}, but {first.path} '
                f'{there or "a test set of its own"}; expected one test set'
            )


def _without_seeds(settings: Mapping) -> dict:
    """Of training, of rendered performances and of the detector."""
    return {
        name: _without_seeds(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name != 'seed'
    }
