"""Reads a trained model, with all that its answers depend on, from wherever it was saved.

The settings are those that were saved with the model, never those of a command line: in a run's
workdir, those with which each stage was made.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.ask import card, exported, hub
from amuse_jax.ask.familiar import Familiar
from amuse_jax.ask.trained import Trained
from amuse_jax.config import default_config
from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import StageError
from amuse_jax.regions import stage as rois
from amuse_jax.system import paths
from amuse_jax.system.manifest import MANIFEST, read_manifest
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import leakage, predict

NEEDED = ('prepare', 'rois', 'pretrain', 'train')
# Settings of the data sets and of the machine, which no answer depends on.
_OF_A_MACHINE = ('data.root', 'data.videos', 'data.rephrased', 'mesh')


def read(source: str, revision: str | None = None) -> Trained:
    """Read a model from the workdir of a run, from an exported folder, or from the hub.

    Args:
      source: the path of a workdir, of the folder of one of its trainings or of an exported model,
        or a name on the Hugging Face hub, USER/NAME. A folder comes first if there are both.
      revision: a branch, a tag or a commit of the name on the hub; None for the newest version.

    Raises:
      StageError: there is no model, or it cannot be read.
    """
    path = paths.from_user(source, 'the model')
    if path.is_dir():
        if revision is not None:
            raise StageError(f'{path} is a folder, which has no revision {revision!r}')
        return exported.read(path) if exported.is_exported(path) else from_workdir(path)
    if hub.is_name(source):
        return exported.read(hub.download(source, revision))
    raise StageError(
        f'there is no folder {path}; expected the workdir of a finished run, a folder that `amuse '
        'export` made, or a name on the Hugging Face hub, USER/NAME'
    )


def from_workdir(folder: Path) -> Trained:
    """Read a trained model from the workdir of a run, or from the folder of one of its trainings.

    Args:
      folder: the workdir, whose folder `train` is read, or the only training if there is none; or a
        folder in it, such as train-paper-head or train-without-rois.

    Raises:
      StageError: the folder holds no finished training, or a result that it was made from is gone.
    """
    train = _find_training(folder)
    workdir, manifest = train.parent, read_manifest(train)
    needs = manifest.get('needs', {})  # format 1 has none
    folders = {'train': train} | {
        name: _find(train, name, needs.get(name)) for name in NEEDED if name != 'train'
    }
    evaluate = workdir / train.name.replace('train', 'evaluate', 1)
    if card.is_about(evaluate, manifest['fingerprint']):
        folders['evaluate'] = evaluate
    return from_folders(saved_config(folders), folders)


def _find_training(folder: Path) -> Path:
    """Return the folder of a finished training: this one, or one in this workdir."""
    if (read_manifest(folder) or {}).get('stage') == 'train':
        return folder
    finished = [path.parent for path in sorted(folder.glob(f'train*/{MANIFEST}'))]
    finished = [path for path in finished if '.' not in path.name]  # none that was set aside
    if folder / 'train' in finished:
        return folder / 'train'
    if len(finished) == 1:
        return finished[0]
    if finished:
        names = ', '.join(path.name for path in finished)
        raise StageError(
            f'{folder} holds several trained models ({names}); name the folder of one of them, '
            f'such as {finished[0]}'
        )
    raise StageError(
        f'{folder} holds no trained model: there is no {folder / "train" / MANIFEST}; expected the '
        'workdir of a finished run, such as runs/demo, or a folder that `amuse export` made'
    )


def from_folders(config: ConfigDict, folders: Mapping[str, Path]) -> Trained:
    """Read a model.

    Args:
      config: the config that it was trained with.
      folders: the folders of the finished stages in NEEDED, by name, and that of `evaluate`, if
        the model was evaluated.

    Raises:
      StageError: a folder does not hold what the config describes.
    """
    structure, arrays = pretrain.load(config, folders['pretrain'])
    return Trained(
        config=config,
        amuse=predict.load_best(config, folders),
        encoder=structure.merge(arrays),
        class_names=tuple(rois.class_names(folders['rois'])),
        detector=folders['rois'] / 'detector.pt',
        familiar=Familiar.from_questions(Prepared(folders['prepare']).questions('train')),
        seen=folders['train'] / leakage.FILE,
        card=functools.partial(card.from_folders, dict(folders)),
    )


def saved_config(folders: Mapping[str, Path]) -> ConfigDict:
    """Return the default settings, changed to those that finished stages were made with.

    Args:
      folders: the folders of the stages, by name.
    """
    config = default_config()
    with config.unlocked():
        for folder in folders.values():
            for name, value in (read_manifest(folder) or {}).get('settings', {}).items():
                if not name.startswith(_OF_A_MACHINE):
                    _set(config, name, value)
    return config


def _set(config: ConfigDict, name: str, value) -> None:
    """Set a value, or all values of a section, by a dotted name; lists become tuples."""
    *sections, last = name.split('.')
    for section in sections:
        config = config[section]
    if isinstance(value, dict):
        for inner, each in value.items():
            _set(config[last], inner, each)
    else:
        config[last] = tuple(value) if isinstance(value, list) else value


def _find(train: Path, name: str, fingerprint: str | None) -> Path:
    """Return the folder of the result with this fingerprint, which may have been set aside.

    Args:
      train: the folder of the training, in the run's workdir.
      name: the stage.
      fingerprint: the fingerprint; None for one that is not known.
    """
    workdir = train.parent
    for folder in (workdir / name, *sorted(workdir.glob(f'{name}.*'))):
        manifest = read_manifest(folder)
        if manifest is not None and fingerprint in (None, manifest['fingerprint']):
            return folder
    raise StageError(
        f'{workdir} holds no result of the stage {name} that the model in {train} was '
        'made from; run the stages again with the settings of this model'
    )
