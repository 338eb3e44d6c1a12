"""Loads the weights of a config's towers from public or converted checkpoints."""

import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict

from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.models.htsat import HTSAT, HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Config
from amuse_jax.models.text import TextConfig, TextTower
from amuse_jax.pretrained import bert, files, htsat, key_mapping, swin_v2
from amuse_jax.system import formats, paths
from amuse_jax.system.files import write_json

PARTS = ('visual', 'audio', 'text')
# Sizes that may differ between a converted checkpoint and the config. The position bias of Swin-V2
# is computed for any window; `swin_v2.check_windows` checks them.
_FREE = {
    'visual': {'image_size', 'window', 'pretrained_windows'},
    'audio': set(),
    'text': {'tokenizer', 'epsilon'},
}
Arrays = dict[str, np.ndarray]


def load(config: ConfigDict, part: str) -> Arrays:
    """Load a tower's arrays from the checkpoint in `config.checkpoints.<part>`.

    Args:
      config: the config of the run.
      part: visual, audio or text.

    Returns:
      The arrays by dotted name; {} if the config names no checkpoint.

    Raises:
      StageError: the checkpoint cannot be read, or does not match the config's sizes.
    """
    where = config.checkpoints[part]
    if not where:
        return {}
    if _is_converted(where):
        return _read_converted(config, part, _user_path(where))
    return from_source(config, part, where)


def check(config: ConfigDict, part: str) -> None:
    """Make sure that `load` will succeed, before hours of work; download a checkpoint of the hub.

    A public checkpoint is read and compared with the tower; no device is used. Of a converted one
    only the description is read.

    Args:
      config: the config of the run.
      part: visual, audio or text.

    Raises:
      StageError: `load` would raise it.
    """
    where = config.checkpoints[part]
    if where and _is_converted(where):
        _check_converted(config, part, _user_path(where))
    elif where:
        key_mapping.convert(*_translation(config, part, where))


def from_source(config: ConfigDict, part: str, where: str) -> Arrays:
    """Convert a public checkpoint to the arrays of a tower.

    Args:
      config: the config with the tower's sizes.
      part: visual, audio or text.
      where: the checkpoint, see files.fetch.

    Returns:
      The tower's arrays by dotted name.

    Raises:
      StageError: the checkpoint cannot be read, or was trained with other windows.
      ConversionError: the checkpoint does not match the tower.
    """
    return _by_name(key_mapping.fill(*_translation(config, part, where)))


def _translation(
    config: ConfigDict, part: str, where: str
) -> tuple[nnx.Module, Arrays, key_mapping.Table]:
    """Return an abstract tower, the arrays of a public checkpoint, and the table between them."""
    model = _tower(config, part)
    if part == 'visual':
        source = swin_v2.read(where, model.config)
        return model, source, swin_v2.table(model.config, source)
    source = files.read(where)
    table = htsat.table if part == 'audio' else bert.table
    return model, source, table(model.config, source)


def write_converted(config: ConfigDict, part: str, arrays: Arrays, folder: Path) -> None:
    """Write a tower's arrays as an Orbax checkpoint, which `load` can read without PyTorch.

    Args:
      config: the config with the tower's sizes.
      part: visual, audio or text.
      arrays: the tower's arrays by dotted name.
      folder: the folder to write.

    Raises:
      StageError: the folder exists.
    """
    if folder.exists():
        raise StageError(f'{folder} exists already; name another folder, or move this one away')
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / 'arrays', arrays)
    sizes = config.model[part].to_dict()
    form = {'format': formats.CHECKPOINT_FORMAT}
    write_json(folder / 'tower.json', form | {'part': part, 'sizes': sizes})


def _is_converted(where: str) -> bool:
    return (_user_path(where) / 'tower.json').is_file()


def _user_path(where: str) -> Path:
    return paths.from_user(where, 'the checkpoint').absolute()


def _check_converted(config: ConfigDict, part: str, folder: Path) -> None:
    """Refuse a converted checkpoint of another part, or with other windows than the config's."""
    path = folder / 'tower.json'
    try:
        description = json.loads(path.read_text('utf-8'))
        holds, sizes = description['part'], dict(description['sizes'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f'{path} does not describe a converted checkpoint ({type(error).__name__}); convert it '
            'again (python -m amuse_jax.pretrained convert)'
        ) from error
    formats.refuse_newer(description.get('format', 1), formats.CHECKPOINT_FORMAT, folder)
    if holds != part:
        raise StageError(f'{folder} holds a tower for {holds}; expected one for {part}')
    own = config.model[part].to_dict()
    for name in sorted(sizes.keys() & own.keys() - _FREE[part]):
        found, wanted = np.array(sizes[name]).tolist(), np.array(own[name]).tolist()
        if found != wanted:
            raise StageError(
                f'{folder} does not match the sizes in config.model.{part}: {name} is {found}; '
                f'expected {wanted}'
            )
    if part == 'visual':
        trained = SwinV2Config(**sizes).trained_windows[0]
        swin_v2.check_windows(_tower(config, part).config, str(folder), trained)


def _read_converted(config: ConfigDict, part: str, folder: Path) -> Arrays:
    _check_converted(config, part, folder)
    shapes = _by_name(_tower(config, part))
    target = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in shapes.items()}
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder / 'arrays', target)
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).partition('\n')[0][:200]
        raise StageError(
            f'{folder} does not match the sizes in config.model.{part} ({reason})'
        ) from error


def _tower(config: ConfigDict, part: str) -> nnx.Module:
    """Return an abstract tower with the config's sizes."""
    sizes = config.model[part].to_dict()
    if part == 'visual':
        return nnx.eval_shape(lambda: SwinV2(SwinV2Config(**sizes), rngs=nnx.Rngs(0)))
    if part == 'audio':
        sizes = HTSATConfig(mels=config.audio.mels, **sizes)
        return nnx.eval_shape(lambda: HTSAT(sizes, rngs=nnx.Rngs(0)))
    vocab_size = QuestionTokenizer(config.model.text).vocab_size
    sizes.pop('tokenizer')
    sizes = TextConfig(vocab_size=vocab_size, **sizes)
    return nnx.eval_shape(lambda: TextTower(sizes, rngs=nnx.Rngs(0)))


def _by_name(model: nnx.Module) -> Arrays:
    return {
        '.'.join(map(str, path)): jax.tree.leaves(variable)[0]
        for path, variable in nnx.to_flat_state(nnx.state(model))
    }
