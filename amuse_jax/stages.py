"""The stages of a run: what each needs, what it depends on, and whether it is done already.

A stage owns one folder of the workdir. `manifest.json` in it is written last and names everything
the artefact was made from; a folder without one is unfinished and is continued, a folder made from
other settings is made again, and so is every stage behind it.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from amuse_jax import hosts, preemption, shards

# Formats of what a run leaves; each is raised when older code can no longer read what is written.
FORMAT = 1  # of stages and their manifests; raised too when an older artefact cannot be read
RECORD_FORMAT = 1  # data/records.py
CHECKPOINT_FORMAT = 2  # training/checkpoints.py, pretrained/towers.py

FULL = (errno.ENOSPC, errno.EDQUOT)

Run = Callable[[ConfigDict, Path, Mapping[str, Path]], dict]


class StageError(Exception):
    """Something a user can mend; says what was found, what was expected and what to do."""


class NewerFormat(StageError):
    """A newer version of amuse_jax wrote this: nothing is wrong with it, so it must stay."""


def refuse_newer(found: int, newest: int, where: str | Path) -> None:
    """Call with the format that something has, before anything else in it is believed.

    Args:
      found: its format.
      newest: one of the formats above.
      where: what the message calls it.

    Raises:
      NewerFormat: only a newer version of amuse_jax can read it.
      ValueError: `found` is no format.
    """
    if not isinstance(found, int):
        raise ValueError(f'its format is {found!r}, expected a number')
    if found > newest:
        raise NewerFormat(
            f'{where} has format {found}, this version of amuse_jax reads up to {newest}; '
            'update amuse_jax, or use another --workdir'
        )


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
        'format': FORMAT,
        'stage': stage.name,
        'settings': settings_of(stage, config),
        'needs': {
            name: fingerprint(stages[name], config, stages)
            for name in stage.needs
            if name in stages
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_manifest(folder: Path) -> dict | None:
    """The manifest of a finished stage; None where there is none.

    Raises:
      StageError: the file is not a manifest, or a newer version wrote it.
    """
    path = folder / 'manifest.json'
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text())
        refuse_newer(manifest['format'], FORMAT, path)
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(
            f'{path} is not a manifest ({error}); delete the folder {folder} to make it again'
        ) from error
    return manifest


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
        with full_disk_told(stage.name, folder):
            summary = stage.run(config, folder, inputs)
    if hosts.is_first():
        manifest = {
            'format': FORMAT,
            'stage': stage.name,
            'fingerprint': mark,
            'settings': settings_of(stage, config),
            'summary': summary,
        }
        write_json(folder / 'manifest.json', manifest)
    hosts.wait(f'{stage.name}: done')


@contextlib.contextmanager
def full_disk_told(name: str, folder: Path) -> Iterator[None]:
    """Inside, `name` fills `folder`.

    Raises:
      StageError: the disk or its quota is full.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # which of them depends on who writes
        full = [text for text in map(os.strerror, FULL) if text in str(error)]
        if not full:
            raise
        raise StageError(
            f'{name} stopped: no space is left on the disk of {folder} ({full[0]}); make room and '
            'start the same command again to go on from what is saved'
        ) from error


def write_json(path: Path, value) -> None:
    """Writes JSON atomically."""
    shards.write_atomically(
        path, lambda beside: beside.write_text(json.dumps(value, indent=1) + '\n')
    )


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
    shards.write_atomically(started, lambda beside: beside.write_text(mark))


def _delete(folder: Path) -> None:
    """Removes a folder in such a way that a kill never leaves half of it under its name."""
    away = folder.with_name(f'.old-{folder.name}')
    folder.rename(away)
    shutil.rmtree(away)


def changes(old: Mapping, new: Mapping, prefix: str = '') -> str:
    """What differs, as 'data.image_size is 128 and was 64, ...'."""
    found = []
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inner = changes(before, after, f'{prefix}{name}.')
            found += [inner] if inner else []
        elif before != after:
            found.append(f'{prefix}{name} is {after!r} and was {before!r}')
    return ', '.join(found)
