"""Mean and standard deviation of accuracies over runs that differ only in their seeds."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from amuse_jax.errors import StageError
from amuse_jax.evaluation import figures, published, report, tables
from amuse_jax.system.manifest import describe_changes, read_manifest

MARGIN = '± deviation'
DATA_FOLDERS = 'data.root', 'data.videos', 'data.rephrased'  # settings that say where data lies


@dataclasses.dataclass(frozen=True)
class Run:
    """The results of a finished evaluate stage.

    Attributes:
      path: path of the run, as the user gave it.
      scores: contents of its scores.json.
    """

    path: Path
    scores: Mapping

    @property
    def rows(self) -> Mapping[str, tables.Row]:
        """Rows of all parts, by the names of report.labelled."""
        return report.labelled(self.scores['parts'], 'rows')


@dataclasses.dataclass(frozen=True)
class Summary:
    """Statistics over all runs, by row and column, for the parts that all runs have.

    Attributes:
      means: mean accuracies in per cent.
      deviations: sample standard deviations (n - 1) over the runs, in percentage points.
      margins: for Amuse's rows, half the width of the 95 % interval over test videos, as the mean
        over the runs, in percentage points.
    """

    means: dict[str, dict[str, float]]
    deviations: dict[str, dict[str, float]]
    margins: dict[str, dict[str, float]]


def read(path: Path) -> Run:
    """Read the scores of a run.

    Args:
      path: the run's workdir, or an evaluate folder in it.

    Raises:
      StageError: the run has no finished evaluate stage.
    """
    return Run(path, tables.read_scores(evaluate_folder(path)))


def evaluate_folder(path: Path) -> Path:
    """Return the finished evaluate folder that a workdir has, or that a path names; see `read`."""
    folder = path / 'evaluate' if (path / 'evaluate').is_dir() else path
    if read_manifest(folder) is None or not (folder / 'scores.json').is_file():
        raise StageError(
            f'{path} has no finished evaluate stage; expected the --workdir of a finished run, or '
            'an evaluate folder in it'
        )
    return folder


def summarise(runs: Sequence[Run]) -> Summary:
    """Compute the mean and the standard deviation of every cell.

    Raises:
      StageError: a run is given twice, or runs differ in more than seeds or in their test sets.
    """
    _check(runs)
    rows = [run.rows for run in runs]
    margins = [report.own_margins(run.scores['parts']) for run in runs]
    return Summary(
        _aggregate(rows, np.mean),
        _aggregate(rows, functools.partial(np.std, ddof=1)),
        _aggregate(margins, np.mean),
    )


def _aggregate(
    runs: Sequence[Mapping[str, tables.Row]], statistic: Callable[[list[float]], np.floating]
) -> dict[str, dict[str, float]]:
    """Compute a statistic of every cell, for the rows that all runs have."""
    shared = [label for label in runs[0] if all(label in rows for rows in runs)]
    return {
        label: {
            column: float(statistic([rows[label][column] for rows in runs]))
            for column in tables.COLUMNS
        }
        for label in shared
    }


def write(folder: Path, runs: Sequence[Run]) -> str:
    """Write table.{txt,md,csv} and accuracy.png.

    Returns:
      The table as text, and the path of table.md.

    Raises:
      StageError: see `summarise`.
    """
    summary = summarise(runs)
    test_set = runs[0].scores['test_set']
    peers = published.methods(test_set['published'])
    peer_rows = published.with_verdicts(peers)
    main = {label: summary.means[label] for label in runs[0].scores['parts']['test']['rows']}
    parts = {label: row for label, row in summary.means.items() if label not in main}
    displayed = [_with_spread(main, summary) | published.marked(peers)]
    displayed += [_with_spread(parts, summary)] if parts else []
    notes = [
        f'Mean and standard deviation over {len(runs)} runs'
        + (f' on {test_set["name"]}' if test_set['name'] else '')
        + f'; overall accuracy of Amuse in each run: {_list_accuracies(runs)}.',
        f'{report.INTERVAL_NOTE} Here it is the mean over the runs.',
        *published.notes(peers),
    ]
    csv_rows = _csv_rows(runs, summary) | peer_rows
    text = tables.write(folder, displayed, csv_rows, notes, 'accuracy.png')
    figures.accuracy_bars(main, folder / 'accuracy.png', summary.deviations, peer_rows)
    return f'\n{text}\n\ntable: {folder / "table.md"}'


def _with_spread(
    rows: Mapping[str, tables.Row], summary: Summary
) -> dict[str, Mapping[str, float | str]]:
    """Return the rows, each followed by its margins and its standard deviations."""
    with_deviations = tables.with_margins(rows, summary.deviations, MARGIN)
    return tables.with_margins(with_deviations, summary.margins, report.MARGIN)


def _csv_rows(runs: Sequence[Run], summary: Summary) -> dict[str, tables.Row]:
    """Return means, deviations and margins, and the rows of every run."""
    result: dict[str, tables.Row] = {}
    for label, row in summary.means.items():
        result |= {label: row, f'{label}, deviation': summary.deviations[label]}
        if label in summary.margins:
            result[f'{label}, {report.MARGIN}'] = summary.margins[label]
        result |= {f'{label}: {run.path}': run.rows[label] for run in runs}
    return result


def _list_accuracies(runs: Sequence[Run]) -> str:
    return ', '.join(f'{run.rows["Amuse"]["Avg"]:.2f} ({run.path})' for run in runs)


def _check(runs: Sequence[Run]) -> None:
    first, trained = runs[0], set()
    for run in runs:
        model = run.scores['model']
        if model['fingerprint'] in trained:
            raise StageError(
                f'{run.path} repeats another of the runs (same settings and same seeds); '
                'expected runs with different seeds (--config.seed=S)'
            )
        trained.add(model['fingerprint'])
        changed = describe_changes(
            *(_compared(each.scores['model']['settings']) for each in (first, run))
        )
        # Rendered sets have no hash of their content, and neither have scores of earlier versions.
        contents = {each.scores['model'].get('data', '') for each in (first, run)} - {''}
        if not changed and len(contents) > 1:
            changed = 'the videos or the annotations have other contents'
        if changed:
            raise StageError(
                f'{run.path} has other settings than {first.path} ({changed}); expected runs that '
                'differ only in their seeds'
            )
        test_set, first_test_set = (each.scores['test_set']['name'] for each in (run, first))
        if test_set != first_test_set:
            unpublished = 'an unpublished test set'
            raise StageError(
                f'{run.path} was evaluated on {test_set or unpublished}, but {first.path} on '
                f'{first_test_set or unpublished}; expected the same test set'
            )


def _compared(settings: Mapping) -> dict:
    """Remove the seeds of training, of rendered performances and of the detector.

    Where a data set lies does not matter either; its content is compared.
    """
    return {
        name: _compared(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name not in ('seed', *DATA_FOLDERS)
    }
