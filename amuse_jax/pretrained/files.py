"""Finds checkpoints, local files and folders or on the Hugging Face hub, and reads their arrays."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np

from amuse_jax.errors import StageError, first_line
from amuse_jax.pretrained import contents, prefixes
from amuse_jax.system import paths

TORCH = ('.pt', '.pth', '.ckpt', '.bin', '.pth.tar', '.pt.tar')
ENDINGS = ('.safetensors', *TORCH)
INDEX = '.index.json'  # ending of a file that says which of several files holds which array
# Names of the weights on the hub and in a folder of `save_pretrained`, in order of preference.
HUB_FILES = (
    'model.safetensors', 'pytorch_model.bin',
    f'model.safetensors{INDEX}', f'pytorch_model.bin{INDEX}',
)  # fmt: skip
CONFIG = 'config.json'  # description of the model beside its weights
_SHARD = re.compile(r'-(\d+)-of-(\d+)\.\w+$')


def read(where: str) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint by name, without the prefixes that all names share.

    Args:
      where: see `fetch`.

    Raises:
      StageError: `fetch` raises it, or a file cannot be read without unpickling other objects.
    """
    arrays = {}
    for path in fetch(where):
        arrays |= contents.read(path)
    return prefixes.removed(arrays)


def fetch(where: str) -> list[Path]:
    """Return the files of a checkpoint; download them into the hub's cache if it is a hub name.

    Args:
      where: a .safetensors, .pt, .pth, .ckpt, .bin or .pth.tar file; the index of several such
        files; a folder that `save_pretrained` wrote; or a name on the hub, such as
        microsoft/swinv2-large-patch4-window12-192-22k or timm/swinv2_tiny_window8_256.ms_in1k.

    Raises:
      StageError: a file does not exist or is of another kind, it needs PyTorch and PyTorch is not
        installed, or the hub cannot be reached.
    """
    path = paths.from_user(where, 'the checkpoint')
    if path.is_dir():
        path = _in_folder(path)
    on_hub = not path.exists() and not path.name.endswith((*ENDINGS, INDEX))
    if on_hub:
        path = _from_hub(where)
    if not path.name.endswith(INDEX):
        _check(path)
        _refuse_single_shard(path)
        return [path]
    beside = [path.with_name(name) for name in _shards(path)]
    found = [(on_hub and _download(where, each.name)) or each for each in beside]
    for each in found:
        _check(each)
    return found


def description(where: str) -> dict:
    """Return config.json beside a checkpoint's weights, or {} if there is none.

    Args:
      where: see `fetch`.
    """
    try:
        found = json.loads((fetch(where)[0].parent / CONFIG).read_text('utf-8'))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def beside(where: str, name: str) -> Path | None:
    """Return a file that belongs to a checkpoint, such as its tokenizer; None if there is none.

    Args:
      where: see `fetch`; of a hub name the file is downloaded.
      name: the file's name.

    Raises:
      StageError: see `fetch`.
    """
    path = fetch(where)[0].with_name(name)
    if path.is_file():
        return path
    return None if paths.from_user(where, 'the checkpoint').exists() else _download(where, name)


def _in_folder(folder: Path) -> Path:
    for name in HUB_FILES:
        if (folder / name).is_file():
            return folder / name
    raise StageError(
        f'the folder {folder} holds no checkpoint; expected {", ".join(HUB_FILES[:-1])} or '
        f'{HUB_FILES[-1]}, as save_pretrained writes them, or name a file'
    )


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index lists."""
    _check_exists(index)
    try:
        names = sorted(set(json.loads(index.read_text('utf-8'))['weight_map'].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageError(
            f'{index} is no index of a checkpoint ({type(error).__name__}); expected JSON with a '
            '"weight_map" from names to files'
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise StageError(f'{index} lists {name!r}; expected the name of a file beside it')
    return names


def _refuse_single_shard(path: Path) -> None:
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        raise StageError(
            f'{path} is one of the {int(shard[2])} files of a checkpoint; name their folder, or '
            f'the file that ends in {INDEX}'
        )


def _check(path: Path) -> None:
    """Refuse a file that is missing, of another kind, or unreadable without PyTorch."""
    _check_exists(path)
    if not path.name.endswith(ENDINGS):
        raise StageError(
            f'{path} has the ending {path.suffix!r}; expected one of {", ".join(ENDINGS)}'
        )
    if path.name.endswith(TORCH) and importlib.util.find_spec('torch') is None:
        raise StageError(
            f"reading {path} needs PyTorch: run pip install '.[offline]', or convert the file on a "
            'machine with PyTorch (python -m amuse_jax.pretrained convert)'
        )


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise StageError(f'no checkpoint at {path}; expected a file or a folder')


def _from_hub(name: str) -> Path:
    if not re.fullmatch(r'[\w.-]+/[\w.-]+', name):
        raise StageError(
            f'{name!r} is neither a checkpoint file nor a name on the hub; expected a folder, a '
            'path that ends in .safetensors, .pt, .pth or .ckpt, or OWNER/NAME'
        )
    from huggingface_hub import try_to_load_from_cache

    for file in HUB_FILES:
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return Path(cached)
    for file in HUB_FILES:
        if downloaded := _download(name, file):
            return downloaded
    raise StageError(f'{name} on the hub has neither model.safetensors nor pytorch_model.bin')


def _download(name: str, file: str) -> Path | None:
    """Return where a file of a hub name lies in the local cache; None if the name has no such file.

    Raises:
      StageError: the hub cannot be reached, or there is no such name.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, etag_timeout=5))
    except Exception as error:  # the network, the hub or the name may be wrong
        # If the hub cannot be reached, the library says that the file is not in its cache.
        not_reached = isinstance(error, LocalEntryNotFoundError)
        if isinstance(error, EntryNotFoundError) and not not_reached:
            return None
        reason = first_line(error)
        raise StageError(
            f'{name} could not be fetched from the hub ({type(error).__name__}: {reason}). '
            f'Download its {file} on a machine with a network, and give the path of that file '
            'instead of the name'
        ) from error
