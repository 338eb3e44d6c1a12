"""The stages of a run: what each needs, what it depends on, and whether it is done already.

A stage owns one folder of the workdir. `manifest.json` in it is written last and names everything
the artefact was made from; a folder without one is unfinished and is continued, a folder made from
other settings is made again, and so is every stage behind it.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.system import formats, hosts, preemption
from amuse_jax.system.files import full_disk_as_error, write_atomically, write_json
from amuse_jax.system.manifest import changes, read_manifest

Run = Callable[[ConfigDict, Path, Mapping[str, Path]], dict]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the run.

    Attributes:
      name: as in `--stages`.
      run: `run(config, folder, inputs)` fills `folder` and returns a summary of JSON values;
        `inputs` maps each needed stage's name to its folder. Started again after a kill, it
        continues.
      needs: the stages whose folders it reads.
      settings: dotted names of the config values that decide its artefact; the name of a section
        means the whole section.
      folder: its folder in the workdir, when that is not its name (ablations have their own).
      by_all: of several hosts, all take part in it; else the first one alone.
    """

    name: str
    run: Run
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    folder: str = ''
    by_all: bool = False

    def path(self, workdir: Path) -> Path:
        return workdir / (self.folder or self.name)


def settings_of(stage: Stage, config: ConfigDict) -> dict:
    """The config values that decide the stage's artefact, under their dotted names."""
    chosen = {}
    for name in stage.settings:
        value = config
        for part in name.split('.'):
            value = value[part]
        chosen[name] = value.to_dict() if isinstance(value, ConfigDict) else value
    return json.loads(json.dumps(chosen))


def fingerprint(stage: Stage, config: ConfigDict, stages: Mapping[str, Stage]) -> str:
    """A hash of the stage's settings and of everything in front of it."""
    content = {
        'format': formats.FORMAT,
        'stage': stage.name,
        'settings': settings_of(stage, config),
        'needs': {
            name: fingerprint(stages[name], config, stages)
            for name in stage.needs
            if name in stages
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def is_complete(
    stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]
) -> bool:
    manifest = read_manifest(stage.path(workdir))
    return manifest is not None and manifest['fingerprint'] == fingerprint(stage, config, stages)


def run_stage(stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]) -> None:
    """Runs the stage unless its artefact is complete.

    Of several hosts, all call it and return when the stage is complete. What is in the workdir the
    first one alone judges: others may see it otherwise for a while.

    Raises:
      StageError: a stage it needs is not complete, or the disk is full.
      Preempted: several processes got a notice.
    """
    preemption.stop_if_noticed()
    folder = stage.path(workdir)
    mark = fingerprint(stage, config, stages)
    if hosts.first_says(hosts.is_first() and is_complete(stage, config, workdir, stages)):
        logging.info('%s: done already (%s)', stage.name, folder)
        return
    if hosts.is_first():
        for name in stage.needs:
            if name in stages:
                _require(stages[name], stage, config, workdir, stages)
        _make_room(stage, config, folder, mark, read_manifest(folder))
    hosts.wait(f'{stage.name}: ready')
    logging.info('%s: starting (%s)', stage.name, folder)
    inputs = {name: stages[name].path(workdir) for name in stage.needs if name in stages}
    if stage.by_all or hosts.is_first():
        with full_disk_as_error(stage.name, folder):
            summary = stage.run(config, folder, inputs)
    if hosts.is_first():
        manifest = {
            'format': formats.FORMAT,
            'stage': stage.name,
            'fingerprint': mark,
            'settings': settings_of(stage, config),
            'summary': summary,
        }
        write_json(folder / 'manifest.json', manifest)
    hosts.wait(f'{stage.name}: done')


def _require(
    needed: Stage, by: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]
) -> None:
    if is_complete(needed, config, workdir, stages):
        return
    manifest = read_manifest(needed.path(workdir))
    if manifest is None:
        raise StageError(
            f'{by.name} needs the stage {needed.name}, which is not finished in {workdir}; '
            f'add {needed.name} to --stages, or leave --stages out to run whatever is missing'
        )
    changed = (
        changes(manifest['settings'], settings_of(needed, config)) or 'a stage before it changed'
    )
    raise StageError(
        f'{by.name} needs the stage {needed.name}, but {needed.path(workdir)} was made with other '
        f'settings ({changed}); add {needed.name} to --stages to make it again, or use another '
        '--workdir'
    )


def _make_room(
    stage: Stage, config: ConfigDict, folder: Path, mark: str, manifest: dict | None
) -> None:
    """Empties the folder unless it holds an unfinished run of the very same settings."""
    started = folder / 'started'
    for leftover in folder.parent.glob(f'.old-{folder.name}'):  # of a run killed while deleting
        shutil.rmtree(leftover)
    if manifest is not None:
        changed = (
            changes(manifest['settings'], settings_of(stage, config)) or 'a stage before it changed'
        )
        logging.info('%s: made again, because %s', stage.name, changed)
        _delete(folder)
    elif started.exists():
        if started.read_text() != mark:
            _delete(folder)
    elif folder.exists() and any(not p.name.startswith('.tmp-') for p in folder.iterdir()):
        raise StageError(
            f'{folder} holds files that no run of amuse_jax left; move them away or use another '
            '--workdir'
        )
    write_atomically(started, lambda beside: beside.write_text(mark))


def _delete(folder: Path) -> None:
    """Removes a folder in such a way that a kill never leaves half of it under its name."""
    away = folder.with_name(f'.old-{folder.name}')
    folder.rename(away)
    shutil.rmtree(away)
