"""The results in a workdir as a table for a terminal: their states, sizes and what is set aside."""

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.errors import StageError, first_few
from amuse_jax.run import set_aside
from amuse_jax.run.definition import Stage
from amuse_jax.run.results import Results


def table(config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]) -> str:
    """Return a line for each stage, and one for each result that was set aside.

    Args:
      config: the run's config.
      workdir: the run's folder.
      stages: the run's stages by name, in order.
    """
    results = Results(config, workdir, stages)
    lines, aside = [], {}
    for name, stage in stages.items():
        folder = stage.path(workdir)
        state = _state(config, results, stage, workdir, stages)
        lines.append(_line(folder, workdir, state))
        for kept in set_aside.folders(folder) if stage.is_kept else ():
            aside[kept] = _difference(results, name, kept)
    for kept in set_aside.all_folders(workdir):
        aside.setdefault(kept, 'of another config, such as an ablation')
    text = [f'{workdir}', '', *lines]
    if aside:
        size = sum(map(set_aside.size, aside))
        text += [
            '',
            f'set aside ({_size_text(size)}); a result returns when its settings do, and no run '
            'deletes it:',
            *(_line(kept, workdir, state) for kept, state in aside.items()),
        ]
    return '\n'.join(text)


def _state(
    config: ConfigDict, results: Results, stage: Stage, workdir: Path, stages: Mapping[str, Stage]
) -> str:
    name, folder = stage.name, stage.path(workdir)
    try:
        place, manifest = results.place(name), results.manifest(name, folder)
    except StageError as error:
        return str(error)
    if place == folder:
        return 'complete' + _source_state(config, stage, workdir, stages)
    if place is not None:
        return f'will be {place.name} again'
    if manifest is not None:
        fate = 'set aside' if stage.is_kept else 'replaced'
        return f'will be {fate}: {_difference(results, name, folder)}'
    if results.unfinished_place(name) is not None:
        return 'unfinished, goes on'
    if (folder / set_aside.STARTED).exists():
        return _difference(results, name, folder)
    return 'missing'


def _source_state(
    config: ConfigDict, stage: Stage, workdir: Path, stages: Mapping[str, Stage]
) -> str:
    """Return what has happened to the data set's files since the stage has read them."""
    compared = stage.compare(config, workdir, stages)
    if compared is None:
        return ''
    changed = f'; files have changed: {first_few(compared.changed, ", ")}'
    gone = f'; files are gone: {first_few(compared.gone, ", ")}'
    return (changed if compared.changed else '') + (gone if compared.gone else '')


def _difference(results: Results, name: str, folder: Path) -> str:
    unfinished = '' if results.manifest(name, folder) else 'unfinished; '
    return unfinished + (first_few(results.reasons(name, folder), ', ') or 'fits these settings')


def _line(folder: Path, workdir: Path, state: str) -> str:
    name = str(folder.relative_to(workdir))
    return f'  {name:32} {_size_text(set_aside.size(folder)):>10}  {state}'


def _size_text(size: int) -> str:
    return f'{size / 1e9:.2f} GB' if size >= 1e7 else f'{size / 1e6:.2f} MB'
