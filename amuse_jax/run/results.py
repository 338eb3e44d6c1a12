"""The results in a workdir: which of them the present config asks for, and where each one is.

A result is in its stage's folder, or in a folder beside it that an earlier run set aside
(set_aside.py). `manifest.json` describes a finished result, and `started` an unfinished one.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from amuse_jax.data import sources
from amuse_jax.errors import NewerFormat
from amuse_jax.run import format_1, made_from, set_aside
from amuse_jax.run.definition import Stage
from amuse_jax.system import formats
from amuse_jax.system.files import write_json
from amuse_jax.system.manifest import MANIFEST, read_manifest


class Results:
    """The results in a workdir, as they are when each is first asked for.

    Args:
      config: the run's config.
      workdir: the run's folder.
      stages: the run's stages by name, in order.
      needs_data: whether the data set must be the one that the results are from: its folder, and
        its files in truth/.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        stages: Mapping[str, Stage],
        needs_data: bool = True,
    ):
        self._config, self._workdir, self._stages = config, workdir, stages
        self._needs_data = needs_data
        self._wanted: dict[str, dict] = {}
        self._recorded: dict[Path, dict | None] = {}
        self._places: dict[str, Path | None] = {}

    def folder(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self._stages[name].path(self._workdir)

    def is_complete(self, name: str) -> bool:
        """Return whether the stage's folder holds the finished result that the config asks for."""
        return self.place(name) == self.folder(name)

    def place(self, name: str) -> Path | None:
        """Return the folder of the finished result that the config asks for, or None.

        It is the stage's folder, or one that was set aside. An unfinished `--redo` goes before the
        result that it replaces.
        """
        if name not in self._places:
            folders = [] if self._is_being_redone(name) else self._folders(name)
            fitting = (f for f in folders if self.manifest(name, f) and not self.reasons(name, f))
            self._places[name] = next(fitting, None)
        return self._places[name]

    def unfinished_place(self, name: str) -> Path | None:
        """Return the folder of an unfinished result that goes on with this config, or None."""
        for folder in self._folders(name):
            started = folder / set_aside.STARTED
            if self.manifest(name, folder) is not None or not started.is_file():
                continue
            if self.recorded(name, folder) is None:
                wanted = self.wanted(name)
                needs = {need: self._identities(need)[1] for need in wanted['needs']}
                text = started.read_text('utf-8', errors='replace')
                if format_1.fits_begun(text, name, wanted, needs):
                    return folder
            elif not self.reasons(name, folder):
                return folder
        return None

    def _folders(self, name: str) -> list[Path]:
        folder = self.folder(name)
        return [folder, *(set_aside.folders(folder) if self._stages[name].is_kept else ())]

    def _is_being_redone(self, name: str) -> bool:
        folder = self.folder(name)
        if self.manifest(name, folder) is not None:
            return False
        recorded = self.recorded(name, folder)
        return bool(recorded and recorded['redo'] and not self.reasons(name, folder))

    def reasons(self, name: str, folder: Path) -> list[str]:
        """Return why the result in the folder is not the one that the config asks for.

        The folder is that of the stage, or one that was set aside. [] if it is the right one.
        """
        recorded = self.recorded(name, folder)
        if recorded is None:
            return ['an earlier version began it and did not record its settings']
        wanted = self.wanted(name)
        is_finished = self.manifest(name, folder) is not None
        reasons = made_from.differences(recorded, wanted, is_finished)
        has_sources = not self._stages[name].compare_sources or sources.read(folder) is not None
        if self._needs_data and not has_sources:
            reasons += made_from.moved_roots(recorded, wanted)
        for need, identity in wanted['needs'].items():
            before = recorded['needs'].get(need, identity)
            if identity is not None and before != identity:
                reasons += self._reasons_of_need(need)
        return list(dict.fromkeys(reasons))  # several stages may have the same setting

    def wanted(self, name: str) -> dict:
        """Return what the stage's result must be made from (made_from.py)."""
        if name not in self._wanted:
            stage, folder = self._stages[name], self.folder(name)
            recorded = self.recorded(name, folder) or {}
            truth = stage.truth(self._config) if stage.truth and self._needs_data else ''
            self._wanted[name] = made_from.describe(
                self._config,
                stage.settings,
                {need: self.identity(need) for need in stage.needs if need in self._stages},
                self._sources(name),
                recorded.get('redo', ''),
                recorded.get('contents'),
                truth,
            )
        return self._wanted[name]

    def identity(self, name: str) -> str | None:
        """Return the fingerprint of the stage's result, as later stages will find it.

        None if that cannot be known before the stage has run.
        """
        place = self.place(name)
        if place is not None:
            return self.manifest(name, place)['fingerprint']
        if self._reads_data_set(name):
            return None
        wanted = self.wanted(name)
        return None if None in wanted['needs'].values() else wanted['fingerprint']

    def manifest(self, name: str, folder: Path) -> dict | None:
        """Return the manifest of a finished result in the present format; None if there is none.

        Raises:
          StageError: the file is not a manifest, or a newer version wrote it.
        """
        manifest = read_manifest(folder)
        if manifest is None or manifest['format'] == formats.FORMAT:
            return manifest
        return self.upgraded(name, manifest)

    def upgraded(self, name: str, manifest: dict) -> dict:
        """Return a manifest of format 1 in the present format."""
        needs = {
            need: self._identities(need)
            for need in self._stages[name].needs
            if need in self._stages
        }
        made = format_1.describe(name, manifest, needs, self._sources(name))
        return manifest | made | {'format': formats.FORMAT, 'format_1': manifest['fingerprint']}

    def recorded(self, name: str, folder: Path) -> dict | None:
        """Return what the finished or unfinished result in the folder was made from, if known."""
        if folder not in self._recorded:
            self._recorded[folder] = self.manifest(name, folder) or _read_started(folder)
        return self._recorded[folder]

    def _identities(self, name: str) -> tuple[str | None, str]:
        """Return the fingerprint of a stage's result now, and the one it had in format 1."""
        manifest = self.manifest(name, self.folder(name))
        if manifest is not None:
            return manifest['fingerprint'], manifest.get('format_1', '')
        wanted = self.wanted(name)
        needs = {need: self._identities(need)[1] for need in wanted['needs']}
        return self.identity(name), format_1.fingerprint(name, wanted['settings'], needs)

    def _sources(self, name: str) -> str:
        """Return the hash of the data set's files that the stage has read; '' if it reads none."""
        entries = sources.read(self.folder(name)) if self._reads_data_set(name) else None
        return '' if entries is None else sources.digest(entries)

    def _reads_data_set(self, name: str) -> bool:
        """Return whether the stage reads a data set that this run has not rendered itself.

        Rendered videos follow from the settings of the stage `render`.
        """
        stage = self._stages[name]
        is_rendered = 'render' in stage.needs and not self._config.data.root
        return stage.compare_sources is not None and not is_rendered

    def _reasons_of_need(self, need: str) -> list[str]:
        folder = self.folder(need)
        reasons = self.reasons(need, folder) if self.recorded(need, folder) else []
        return reasons or [f'{need} was made again']


def _read_started(folder: Path) -> dict | None:
    """Read what an unfinished result is being made from; None if it is not recorded."""
    path = folder / set_aside.STARTED
    if not path.is_file():
        return None
    try:
        recorded = json.loads(path.read_text('utf-8'))
        formats.refuse_newer(recorded['format'], formats.FORMAT, path)
    except NewerFormat:
        raise
    except (ValueError, KeyError, TypeError):
        return None  # format 1 recorded a hash alone
    return recorded


def has_format_1(workdir: Path, stages: Mapping[str, Stage]) -> bool:
    """Return whether the folder of a stage holds a result of format 1."""
    manifests = [read_manifest(stage.path(workdir)) for stage in stages.values()]
    return any(manifest and manifest['format'] < formats.FORMAT for manifest in manifests)


def adopt(config: ConfigDict, workdir: Path, stages: Mapping[str, Stage]) -> None:
    """Rewrite the manifests of format 1 in the present format, so that the results stay in use.

    The source files of records from before `sources.json` are recorded.

    Args:
      config: the run's config.
      workdir: the run's folder.
      stages: the run's stages by name, in order.
    """
    for stage in stages.values():
        folder = stage.path(workdir)
        manifest = read_manifest(folder)
        if manifest is None or manifest['format'] == formats.FORMAT:
            continue
        moved_to = None
        if stage.name == 'prepare' and config.data.root:
            root = Path(manifest['settings'].get('data.root') or config.data.root)
            is_same = root.resolve() == Path(config.data.root).resolve()
            if is_same or not root.exists():  # gone, as after a move to another mount point
                if sources.record_sources(config, folder, stage.inputs(workdir, stages)):
                    moved_to = config.data.root
        manifest = Results(config, workdir, stages).upgraded(stage.name, manifest)
        if moved_to is not None:
            manifest['settings']['data.root'] = moved_to
        if 'unknown' not in manifest['needs'].values():
            write_json(folder / MANIFEST, manifest)
            logging.info('%s: the result of an earlier version is used (%s)', stage.name, folder)
