"""A trained model in one folder, which can be read on any machine.

    config.json           the settings that answers depend on, class names, words of the training
    model.safetensors     arrays by name: amuse.NAME, and encoder.NAME of the universal encoder
    tokenizer.json        the tokenizer, as the library tokenizers writes it
    detector.safetensors  the detector's weights, if the model looks at regions
    seen.npy              hashes of the training and validation questions (leakage.py)
    README.md             the model card
    *.jax_export          programs, if they were asked for (program.py)

Nothing is unpickled, no code of the folder runs, and no hub is asked.
"""

import functools
import importlib.metadata
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from safetensors.numpy import save_file

from amuse_jax.ask import arrays, program, settings
from amuse_jax.ask.familiar import Familiar
from amuse_jax.ask.trained import Trained
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError, first_line
from amuse_jax.models.amuse import AmuseConfig
from amuse_jax.music_avqa import vocabulary
from amuse_jax.regions import process
from amuse_jax.system import files, formats
from amuse_jax.training.train import leakage

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
TOKENIZER = 'tokenizer.json'
DETECTOR = 'detector.safetensors'
CARD = 'README.md'
SEEN = leakage.FILE
FILES = (CONFIG, WEIGHTS, TOKENIZER, DETECTOR, SEEN, CARD, *program.FILES)
_LARGEST_TEXT = 50_000_000  # bytes of a file of text
_READ_SECONDS = 60.0


def is_exported(folder: Path) -> bool:
    """Return whether a folder is an exported model."""
    return (folder / CONFIG).is_file()


def refuse_used(folder: Path) -> None:
    """Refuse a folder that holds something, because an export deletes nothing.

    Raises:
      StageError: it is not empty, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StageError(f'{folder} exists already; name another folder, or move this one away')


def write(trained: Trained, folder: Path, stablehlo: bool = False) -> None:
    """Write a model to a folder, which appears when it is complete.

    Args:
      trained: the model.
      folder: a folder that does not exist or is empty.
      stablehlo: whether to write the programs that run without this package, too.

    Raises:
      StageError: the folder holds something, the disk is full, or the detector cannot be written
        without pickle.
    """
    refuse_used(folder)
    temporary = folder.absolute().with_name(f'.tmp-{uuid.uuid4().hex[:16]}-{folder.name}')
    temporary.mkdir(parents=True)
    try:
        with files.full_disk_as_error('the export', folder):
            _fill(trained, temporary)
            if stablehlo:
                program.write(trained, temporary)
            read(temporary)  # nobody gets a folder that cannot be read
            files.rename(temporary, folder.absolute())
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(folder: Path) -> Trained:
    """Read an exported model.

    Raises:
      StageError: a file is missing, damaged or of another model, or was made by a newer version.
    """
    folder = folder.absolute()
    path = folder / CONFIG
    content = _read_json(path)
    try:
        formats.refuse_newer(content['format'], formats.EXPORT_FORMAT, path)
        values = dict(content['settings'])
        names = {key: _names(content[key]) for key in ('classes', 'answers', 'instruments')}
        familiar = Familiar.from_json({key: _names(content[key]) for key in ('words', 'forms')})
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(
            f'{path} does not describe a model ({type(error).__name__}: {first_line(error)}); '
            f'{arrays.AGAIN}'
        ) from error
    try:
        config = settings.restore(values)
    except StageError as error:
        raise StageError(f'{path}: {error}') from error
    _check_vocabulary(path, names)
    config.update_from_flattened_dict({settings.TOKENIZER: str(folder / TOKENIZER)})
    amuse, encoder = _structures(config, names['classes'], path)
    found = arrays.read(folder / WEIGHTS, arrays.expected(amuse, encoder))
    detector = folder / DETECTOR
    if 'regions' in AmuseConfig.from_settings(config).streams and not detector.is_file():
        raise StageError(f'there is no file {detector}, but the model needs it; {arrays.AGAIN}')
    return Trained(
        config=config,
        amuse=amuse[0].merge(arrays.without_prefix(arrays.AMUSE, found)),
        encoder=encoder[0].merge(arrays.without_prefix(arrays.ENCODER, found)),
        class_names=names['classes'],
        detector=detector,
        familiar=familiar,
        seen=folder / SEEN,
        card=functools.partial(_read_text, folder / CARD),
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that made the model."""
    found = {}
    for name in ('amuse_jax', 'jax', 'flax'):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from its source, without installation
            continue
    return found


def _fill(trained: Trained, folder: Path) -> None:
    config = trained.config
    content = {
        'format': formats.EXPORT_FORMAT,
        'versions': versions(),
        'settings': settings.select(config),
        'streams': list(trained.amuse.streams),
        'classes': list(trained.class_names),
        'answers': list(vocabulary.ANSWERS),
        'instruments': list(vocabulary.INSTRUMENTS),
        **trained.familiar.to_json(),
    }
    files.write_json(folder / CONFIG, content)
    content = arrays.of_model(trained)
    files.write_atomically(folder / WEIGHTS, lambda beside: save_file(content, beside))
    QuestionTokenizer(config.model.text).save(folder / TOKENIZER)
    if 'regions' in trained.amuse.streams:
        _write_detector(trained.detector, folder / DETECTOR)
    _copy(trained.seen, folder / SEEN)
    (folder / CARD).write_text(trained.card(), 'utf-8')
    for path in folder.iterdir():  # safetensors makes files that only their owner may read
        shutil.copymode(folder / CONFIG, path)


def _write_detector(source: Path, target: Path) -> None:
    if source.suffix == target.suffix:
        _copy(source, target)
    else:
        process.make_portable(source, target)


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise StageError(f'there is no file {source}, which the exported model should hold')
    files.write_atomically(target, lambda beside: shutil.copyfile(source, beside))


def _read_text(path: Path) -> str:
    try:
        return files.read_bytes(path, _LARGEST_TEXT, _READ_SECONDS).decode('utf-8')
    except (OSError, ValueError) as error:
        raise StageError(f'{path} cannot be read ({first_line(error)}); {arrays.AGAIN}') from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise StageError(f'{path} is not JSON ({first_line(error)}); {arrays.AGAIN}') from error
    if not isinstance(content, dict) or 'settings' not in content:
        raise StageError(
            f'{path} is not the description of a model of amuse_jax; expected a folder that '
            '`amuse export` made'
        )
    return content


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError('expected lists of names')
    return tuple(value)


def _check_vocabulary(path: Path, names: Mapping[str, tuple[str, ...]]) -> None:
    own = {'answers': vocabulary.ANSWERS, 'instruments': vocabulary.INSTRUMENTS}
    for key, expected in own.items():
        if names[key] != tuple(expected):
            raise StageError(
                f'{path}: the model has {len(names[key])} {key}, and they are not the '
                f'{len(expected)} that this version of amuse_jax knows; use the version that made '
                'the model'
            )


def _structures(config: ConfigDict, class_names: tuple[str, ...], path: Path):
    try:
        return arrays.structures(config, class_names)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise StageError(
            f'{path}: no model has these settings ({first_line(error)}); {arrays.AGAIN}'
        ) from error
