"""Runs one stage: finds its result, makes way for a new one, and writes down what it is made from.

A stage owns one folder of the workdir. It writes `manifest.json` there last; this file records
everything that determined the result. A folder without a manifest is unfinished, and the stage
continues in it. A result with other settings is set aside (set_aside.py) and comes back when its
settings do; what can be made again from the results that are kept is removed instead.
"""

import shutil
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from amuse_jax.data import sources
from amuse_jax.errors import StageError, first_few
from amuse_jax.run import made_from, set_aside
from amuse_jax.run.definition import Stage
from amuse_jax.run.results import Results
from amuse_jax.system import formats, hosts, preemption
from amuse_jax.system.files import full_disk_as_error, rename, write_json
from amuse_jax.system.manifest import MANIFEST


def run_stage(
    stage: Stage,
    config: ConfigDict,
    workdir: Path,
    stages: Mapping[str, Stage],
    redo: Collection[str] = (),
) -> None:
    """Run the stage unless it is complete.

    With several hosts, all of them call this, and it returns when the stage is complete. Only the
    first host checks the workdir, because other hosts may see an older state of it for a while.

    Args:
      stage: the stage.
      config: the run's config.
      workdir: the run's folder.
      stages: the run's stages by name, in order.
      redo: names of stages that are made again although they are complete.

    Raises:
      StageError: a needed stage is not complete, or the disk is full.
      Preempted: there are several processes, and a preemption notice arrived.
    """
    preemption.stop_on_notice()
    stages = {**stages, stage.name: stage}
    folder, inputs = stage.path(workdir), stage.inputs(workdir, stages)
    is_done = False
    if hosts.is_first():
        results = Results(config, workdir, stages)
        if results.place(stage.name) is None or stage.name in redo:
            for name in inputs:
                _require(stages[name], stage, results)
        is_done = _find_or_make_way(stage, config, workdir, stages, stage.name in redo)
    if hosts.broadcast_from_first(is_done):
        logging.info('%s: already complete (%s)', stage.name, folder)
        return
    hosts.barrier(f'{stage.name}: ready')
    logging.info('%s: starting (%s)', stage.name, folder)
    if stage.on_all_hosts or hosts.is_first():
        with full_disk_as_error(stage.name, folder):
            summary = stage.run(config, folder, inputs)
    if hosts.is_first():
        write_manifest(stage, config, workdir, stages, summary)
    hosts.barrier(f'{stage.name}: done')


def write_manifest(
    stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage], summary: dict
) -> None:
    """Write the manifest of a stage that has finished.

    Args:
      stage: the stage; its folder holds the result.
      config: the run's config.
      workdir: the run's folder.
      stages: the run's stages by name.
      summary: what the stage returned.
    """
    folder, results = stage.path(workdir), Results(config, workdir, stages)
    wanted = results.wanted(stage.name)
    # Not what its files are now, but what they were at its start; the data set is read meanwhile.
    made = (results.recorded(stage.name, folder) or wanted) | {'sources': wanted['sources']}
    made = _header(stage) | {name: made[name] for name in wanted}
    made['fingerprint'] = made_from.fingerprint(made)
    write_json(folder / MANIFEST, made | {'summary': summary})


def check_input(needed: Stage, by: str, results: Results) -> Path:
    """Return the folder of a finished result, which may be one that was set aside.

    Args:
      needed: the stage.
      by: what needs its result, as text.
      results: the results in the workdir.

    Raises:
      StageError: the stage is not finished, or with other settings only; the message names them.
    """
    place, folder = results.place(needed.name), results.folder(needed.name)
    if place is not None:
        return place
    if results.manifest(needed.name, folder) is None:
        raise StageError(
            f'{by} needs the stage {needed.name}, which is not finished in {folder.parent}; '
            f'add {needed.name} to --stages, or leave --stages out to run whatever is missing'
        )
    reasons = ', '.join(results.reasons(needed.name, folder))
    fate = 'kept beside it' if needed.is_kept else 'replaced'
    raise StageError(
        f'{by} needs the stage {needed.name}, but {folder} was made with other settings '
        f'({reasons}); give the settings that it was made with, use another --workdir, or leave '
        f'--stages out to make it again: the present one is then {fate}'
    )


def _require(needed: Stage, by: Stage, results: Results) -> None:
    """Raise `StageError` unless the stage `needed` is complete; `by` is the stage that needs it."""
    place, folder = check_input(needed, by.name, results), results.folder(needed.name)
    if place != folder:
        raise StageError(
            f'{by.name} needs the stage {needed.name}, whose result for these settings is set '
            f'aside as {place}; add {needed.name} to --stages, which brings it back'
        )


def _find_or_make_way(
    stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage], is_redone: bool
) -> bool:
    """Return whether the stage's folder holds its result; otherwise prepare the folder for it.

    A result that was set aside is moved back. What the folder holds instead is set aside or
    removed.
    """
    folder, name = stage.path(workdir), stage.name
    shutil.rmtree(set_aside.removed_name(folder), ignore_errors=True)  # a killed run left it
    results = Results(config, workdir, stages)
    redo = ''
    if is_redone and results.is_complete(name):  # an unfinished one goes on
        _refuse_to_lose(stage, config, workdir, stages)
        redo = '' if stage.compare_sources else uuid.uuid4().hex[:8]
        _make_way(stage, folder, '--redo names it')
    elif (place := results.place(name) or results.unfinished_place(name)) is not None:
        if place != folder:
            _make_way(stage, folder, ', '.join(results.reasons(name, folder)))
            rename(place, folder)
            logging.info('%s: %s fits these settings and is %s again', name, place, folder)
        results = Results(config, workdir, stages)
        if results.is_complete(name) and not _source_changes(stage, config, workdir, stages):
            return True
        redo = (results.recorded(name, folder) or {}).get('redo', '')  # format 1 has none
        if results.is_complete(name):  # its files have changed: what is not concerned is kept
            _refuse_to_lose(stage, config, workdir, stages)
            (folder / MANIFEST).unlink()
    else:
        _refuse_to_lose(stage, config, workdir, stages)
        _make_way(stage, folder, ', '.join(results.reasons(name, folder)))
    _write_started(stage, config, workdir, stages, redo)
    return False


def _write_started(
    stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage], redo: str
) -> None:
    """Record what the stage is being made from."""
    wanted = Results(config, workdir, stages).wanted(stage.name) | {'redo': redo}
    wanted['fingerprint'] = made_from.fingerprint(wanted)
    write_json(stage.path(workdir) / set_aside.STARTED, _header(stage) | wanted)


def _header(stage: Stage) -> dict:
    return {'format': formats.FORMAT, 'stage': stage.name}


def _make_way(stage: Stage, folder: Path, reason: str) -> None:
    """Set the stage's folder aside, or remove it if the stage is not kept.

    Raises:
      StageError: the folder holds files that no run has written.
    """
    if not set_aside.holds_work(folder):
        set_aside.remove(folder)
        return
    if not set_aside.has_record(folder):
        raise StageError(
            f'{folder} holds files that amuse_jax did not write; move them away or use another '
            '--workdir'
        )
    size = set_aside.size(folder) / 1e9
    if stage.is_kept:
        logging.info(
            '%s: %s; the earlier result (%.2f GB) is kept as %s and returns with its settings',
            stage.name, reason, size, set_aside.move(folder),
        )  # fmt: skip
    else:
        logging.info('%s: %s; the earlier result (%.2f GB) is replaced', stage.name, reason, size)
        set_aside.remove(folder)


def _refuse_to_lose(
    stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]
) -> None:
    """Refuse to replace what cannot be made again, because the files it came from are gone.

    Raises:
      StageError: more of the files are gone than `data.max_broken_share` allows.
    """
    folder, results = stage.path(workdir), Results(config, workdir, stages)
    recorded = results.recorded(stage.name, folder)
    if recorded is None:
        return
    if made_from.moved_roots(recorded, results.wanted(stage.name)):  # another data set
        return
    compared = stage.compare(config, workdir, stages)
    if compared and len(compared.gone) > config.data.max_broken_share * len(compared.entries):
        raise StageError(
            f'{stage.name} cannot be made again: {len(compared.gone)} of the '
            f'{len(compared.entries)} files that {folder} was made from are gone '
            f'({first_few(compared.gone, ", ")}); bring them back, give the settings that it was '
            'made with, or use another --workdir'
        )


def _source_changes(
    stage: Stage, config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]
) -> bool:
    """Return whether the data set's files have changed since the stage has read them; log it.

    New times of files with the same content are recorded, and so is another place of the data set.
    """
    folder, compared = stage.path(workdir), stage.compare(config, workdir, stages)
    if compared is None:
        return False
    if compared.gone:
        logging.warning(
            '%s: %d of the files that it was made from are gone (%s); what was made from them is '
            'kept', stage.name, len(compared.gone), first_few(compared.gone, ', '),
        )  # fmt: skip
    if compared.changed:
        logging.info(
            '%s: made again, because files have changed: %s',
            stage.name, first_few(compared.changed, ', '),
        )  # fmt: skip
        return True
    results = Results(config, workdir, stages)
    manifest = results.manifest(stage.name, folder)
    settings = made_from.with_roots(manifest['settings'], results.wanted(stage.name)['settings'])
    if compared.entries != sources.read(folder):
        sources.write(folder, compared.entries)
    if manifest['settings'] != settings:
        write_json(folder / MANIFEST, manifest | {'settings': settings})
    return False
