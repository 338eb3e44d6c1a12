"""One stage of a run: its inputs, its settings, and whether it is complete.

A stage owns one folder of the workdir. It writes `manifest.json` there last; this file records
everything that determined the result. A folder without a manifest is unfinished, and the stage
continues in it. A folder that was made with other settings is made again, and so are all later
stages that depend on it.
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
from amuse_jax.system.manifest import describe_changes, read_manifest

Run = Callable[[ConfigDict, Path, Mapping[str, Path]], dict]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the run.

    Attributes:
      name: the stage's name, as in `--stages`.
      run: `run(config, folder, inputs)` fills `folder` and returns a summary of JSON values.
        `inputs` maps the name of each needed stage to its folder. If an earlier call was killed, it
        continues.
      needs: names of the stages whose folders it reads. A name that is not among the run's stages
        is ignored.
      settings: dotted names of the config values that determine the result; the name of a section
        stands for the whole section.
      folder: the stage's folder in the workdir, if it differs from the name. Ablations have their
        own folders.
      on_all_hosts: whether all hosts take part in it, or the first host alone.
    """

    name: str
    run: Run
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    folder: str = ''
    on_all_hosts: bool = False

    def path(self, workdir: Path) -> Path:
        """Return the stage's folder."""
        return workdir / (self.folder or self.name)


def stage_settings(stage: Stage, config: ConfigDict) -> dict:
    """Return the config values that determine the stage's result, by dotted name."""
    chosen = {}
    for name in stage.settings:
        value = config
        for part in name.split('.'):
            value = value[part]
        chosen[name] = value.to_dict() if isinstance(value, ConfigDict) else value
    return json.loads(json.dumps(chosen))


def fingerprint(stage: Stage, config: ConfigDict, stages: Mapping[str, Stage]) -> str:
    """Return a hash of the stage's settings and of all stages that it depends on."""
    content = {
        'format': formats.FORMAT,
        'stage': stage.name,
        'settings': stage_settings(stage, config),
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
    """Return whether the stage has finished with exactly these settings."""
    manifest = read_manifest(stage.path(workdir))
    return manifest is not None and manifest['fingerprint'] == fingerprint(stage, config, stages)


def run_stage(stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]) -> None:
    """Run the stage unless it is complete.

    With several hosts, all of them call this, and it returns when the stage is complete. Only the
    first host checks the workdir, because other hosts may see an older state of it for a while.

    Raises:
      StageError: a needed stage is not complete, or the disk is full.
      Preempted: there are several processes, and a preemption notice arrived.
    """
    preemption.stop_on_notice()
    folder = stage.path(workdir)
    expected = fingerprint(stage, config, stages)
    if hosts.broadcast_from_first(hosts.is_first() and is_complete(stage, config, workdir, stages)):
        logging.info('%s: already complete (%s)', stage.name, folder)
        return
    if hosts.is_first():
        for name in stage.needs:
            if name in stages:
                _require(stages[name], stage, config, workdir, stages)
        _prepare_folder(stage, config, folder, expected, read_manifest(folder))
    hosts.barrier(f'{stage.name}: ready')
    logging.info('%s: starting (%s)', stage.name, folder)
    inputs = {name: stages[name].path(workdir) for name in stage.needs if name in stages}
    if stage.on_all_hosts or hosts.is_first():
        with full_disk_as_error(stage.name, folder):
            summary = stage.run(config, folder, inputs)
    if hosts.is_first():
        manifest = {
            'format': formats.FORMAT,
            'stage': stage.name,
            'fingerprint': expected,
            'settings': stage_settings(stage, config),
            'summary': summary,
        }
        write_json(folder / 'manifest.json', manifest)
    hosts.barrier(f'{stage.name}: done')


def _require(
    needed: Stage, by: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]
) -> None:
    """Raise `StageError` unless the stage `needed` is complete; `by` is the stage that needs it."""
    if is_complete(needed, config, workdir, stages):
        return
    manifest = read_manifest(needed.path(workdir))
    if manifest is None:
        raise StageError(
            f'{by.name} needs the stage {needed.name}, which is not finished in {workdir}; '
            f'add {needed.name} to --stages, or leave --stages out to run whatever is missing'
        )
    reason = _reason_to_repeat(needed, config, manifest)
    raise StageError(
        f'{by.name} needs the stage {needed.name}, but {needed.path(workdir)} was made with other '
        f'settings ({reason}); add {needed.name} to --stages to make it again, or use another '
        '--workdir'
    )


def _reason_to_repeat(stage: Stage, config: ConfigDict, manifest: Mapping) -> str:
    """Return why the result that the manifest describes is out of date."""
    changes = describe_changes(manifest['settings'], stage_settings(stage, config))
    return changes or 'a stage before it changed'


def _prepare_folder(
    stage: Stage, config: ConfigDict, folder: Path, expected: str, manifest: dict | None
) -> None:
    """Empty the folder, unless it holds an unfinished run with the fingerprint `expected`."""
    started = folder / 'started'
    for leftover in folder.parent.glob(f'.old-{folder.name}'):  # of a run killed while deleting
        shutil.rmtree(leftover)
    if manifest is not None:
        reason = _reason_to_repeat(stage, config, manifest)
        logging.info('%s: running again, because %s', stage.name, reason)
        _delete(folder)
    elif started.exists():
        if started.read_text('utf-8') != expected:
            _delete(folder)
    elif folder.exists() and any(not p.name.startswith('.tmp-') for p in folder.iterdir()):
        raise StageError(
            f'{folder} holds files that amuse_jax did not write; move them away or use another '
            '--workdir'
        )
    write_atomically(started, lambda temporary: temporary.write_text(expected, 'utf-8'))


def _delete(folder: Path) -> None:
    """Delete a folder so that a kill never leaves half of it under its own name."""
    away = folder.with_name(f'.old-{folder.name}')
    folder.rename(away)
    shutil.rmtree(away)
