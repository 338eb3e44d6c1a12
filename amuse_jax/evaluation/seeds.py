"""Mean and deviation over runs that differ in their seeds alone."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from amuse_jax import stages
from amuse_jax.evaluation import figures, published, report, tables
from amuse_jax.stages import StageError

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
        return self.scores['parts']['test']['rows']


@dataclasses.dataclass(frozen=True)
class Summary:
    """Over all runs, by method and column.

    Attributes:
      means: in per cent.
      deviations: standard deviations of a run, from n - 1, in points.
    """

    means: dict[str, dict[str, float]]
    deviations: dict[str, dict[str, float]]


def read(path: Path) -> Run:
    """A run's scores.

    Raises:
      StageError: it has no finished evaluate stage.
    """
    folder = path / 'evaluate' if (path / 'evaluate').is_dir() else path
    if stages.read_manifest(folder) is None or not (folder / 'scores.json').is_file():
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
    means, deviations = {}, {}
    for method in runs[0].rows:
        cells = np.array([[run.rows[method][column] for column in tables.COLUMNS] for run in runs])
        means[method] = dict(zip(tables.COLUMNS, cells.mean(0).tolist()))
        deviations[method] = dict(zip(tables.COLUMNS, cells.std(0, ddof=1).tolist()))
    return Summary(means, deviations)


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
    shown = tables.with_margins(summary.means, summary.deviations, MARGIN)
    shown |= published.marked(peers)
    notes = [
        f'Mean and standard deviation over {len(runs)} runs'
        + (f' on {test_set["name"]}' if test_set['name'] else '')
        + f'; overall accuracy of Amuse in each: {_each(runs)}.',
        *([report.published_note(peers)] if peers else []),
    ]
    text = tables.write(folder, [shown], _csv_rows(runs, summary) | beside, notes, 'accuracy.png')
    figures.accuracy_bars(summary.means, folder / 'accuracy.png', summary.deviations, beside)
    return f'\n{text}\n\ntable: {folder / "table.md"}'


def _csv_rows(runs: Sequence[Run], summary: Summary) -> dict[str, tables.Row]:
    """Means, deviations, and every run's own rows."""
    result: dict[str, tables.Row] = {}
    for method, row in summary.means.items():
        result |= {method: row, f'{method}, deviation': summary.deviations[method]}
        result |= {f'{method}: {run.path}': run.rows[method] for run in runs}
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
        changes = stages.changes(
            *(_without_seeds(each.scores['model']['settings']) for each in (first, run))
        )
        if changes:
            raise StageError(
                f'{run.path} was made otherwise than {first.path} ({changes}); expected runs that '
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
