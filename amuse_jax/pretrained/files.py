"""Reads checkpoint files: safetensors and PyTorch, local or from the Hugging Face hub."""

import importlib.util
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from amuse_jax.errors import StageError
from amuse_jax.system import paths

HUB_FILES = ('model.safetensors', 'pytorch_model.bin')  # in order of preference
TORCH = ('.pt', '.pth', '.ckpt', '.bin')
# Keys under which a file may nest its arrays, outermost first.
WRAPPERS = ('state_dict', 'model', 'module')
LIGHTNING = re.compile(r'sed_model\.')  # prefix of the tower in HTS-AT's released file


def read(where: str) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint by name.

    Args:
      where: see `fetch`.

    Raises:
      StageError: `fetch` raises it, or the file cannot be read without unpickling other objects.
    """
    path = fetch(where)
    return _read_safetensors(path) if path.suffix == '.safetensors' else _read_torch(path)


def fetch(where: str) -> Path:
    """Return the path of a checkpoint; download it into the hub's cache if it is a hub name.

    Args:
      where: a local .safetensors, .pt, .pth, .ckpt or .bin file; or a name on the hub, such as
        microsoft/swinv2-large-patch4-window12-192-22k or timm/swinv2_tiny_window8_256.ms_in1k.

    Raises:
      StageError: the file does not exist or is of another kind, it needs PyTorch and PyTorch is not
        installed, or the hub cannot be reached.
    """
    path = paths.from_user(where, 'the checkpoint')
    if not path.suffix or (not path.exists() and path.suffix not in ('.safetensors', *TORCH)):
        path = _from_hub(where)
    if not path.is_file():
        raise StageError(f'no checkpoint at {path}; expected a file')
    if path.suffix not in ('.safetensors', *TORCH):
        raise StageError(
            f'{path} has the ending {path.suffix!r}; expected one of .safetensors, '
            f'{", ".join(TORCH)}'
        )
    if path.suffix in TORCH and importlib.util.find_spec('torch') is None:
        raise StageError(
            f"reading {path} needs PyTorch: run pip install '.[offline]', or convert the file on a "
            'machine with PyTorch (python -m amuse_jax.pretrained convert)'
        )
    return path


def _from_hub(name: str) -> Path:
    if not re.fullmatch(r'[\w.-]+/[\w.-]+', name):
        raise StageError(
            f'{name!r} is neither a checkpoint file nor a name on the hub; expected a path that '
            'ends in .safetensors, .pt, .pth or .ckpt, or OWNER/NAME'
        )
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in HUB_FILES:
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return Path(cached)
    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(name, file, etag_timeout=5))
        except Exception as error:  # the network, the hub or the name may be wrong
            # If the hub cannot be reached, the library says that the file is not in its cache.
            not_reached = isinstance(error, LocalEntryNotFoundError)
            if isinstance(error, EntryNotFoundError) and not not_reached:
                continue
            reason = str(error).strip().splitlines()[0]
            raise StageError(
                f'{name} could not be fetched from the hub ({type(error).__name__}: {reason}). '
                'Download its model.safetensors on a machine with a network, and give the path '
                'of that file instead of the name'
            ) from error
    raise StageError(f'{name} on the hub has neither model.safetensors nor pytorch_model.bin')


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise StageError(f'{path} is not a complete safetensors file: {error}') from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    import torch

    try:
        is_zip = zipfile.is_zipfile(path)  # only this format can be memory-mapped
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=is_zip)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise StageError(
            f'{path} cannot be read without running code that it may contain ({reason}); '
            'save only its state_dict, or save it as safetensors'
        ) from error
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if key in content), None)
        if not isinstance(inner, Mapping):
            break
        content = inner
    if not isinstance(content, Mapping):
        raise StageError(f'{path} holds a {type(content).__name__}; expected arrays by name')
    arrays = {
        name: tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        for name, tensor in content.items()
        if isinstance(tensor, torch.Tensor)
    }
    return _without_prefix(arrays)


def _without_prefix(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return only the tower's arrays, without the prefix, if the file was saved by Lightning."""
    inner = {
        LIGHTNING.sub('', name, count=1): array
        for name, array in arrays.items()
        if LIGHTNING.match(name)
    }
    return inner or arrays
