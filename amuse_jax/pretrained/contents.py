"""Reads the arrays of one safetensors or PyTorch file, and says what is wrong with a file.

Nothing is unpickled but arrays, plain containers, and a few harmless values that trainers save
beside the weights.
"""

import argparse
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from absl import logging

from amuse_jax.errors import StageError

# Keys under which a file may nest its arrays, outermost first. Like timm, we take the average of
# the weights over the training (EMA) where a trainer saved it.
AVERAGED = ('state_dict_ema', 'model_ema')
WRAPPERS = (*AVERAGED, 'state_dict', 'model', 'module')
NUMPY_CORES = ('numpy.core', 'numpy._core')  # before NumPy 2, and since
_SAFETENSORS = 'BF16 F16 F32 F64 BOOL I8 I16 I32 I64 U8 U16 U32 U64'.split()
_AGAIN = 'download or copy it again'


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file by name; bfloat16 becomes float32.

    Args:
      path: a .safetensors file, or one that `torch.save` wrote.

    Raises:
      StageError: the file is damaged or no checkpoint, it holds other objects than arrays, or
        arrays of a dtype that is no weight's.
    """
    check_kind(path)
    found = _read_safetensors(path) if path.suffix == '.safetensors' else _read_torch(path)
    if not found:
        raise StageError(f'{path} holds no arrays; expected the weights of a model by name')
    return found


def check_kind(path: Path) -> None:
    """Look at a file's beginning and end.

    Raises:
      StageError: it is empty, cut short, or of a kind that often lies in the place of weights.
    """
    problem = _not_weights(path)
    if problem:
        raise StageError(f'{path} cannot be read: it is {problem}')


def _not_weights(path: Path) -> str:
    """Return what a file is that often lies in the place of weights; '' if it is none of these."""
    if not path.stat().st_size:
        kind = 'safetensors' if path.suffix == '.safetensors' else 'PyTorch'
        return f'empty, so not a complete {kind} file; {_AGAIN}'
    with open(path, 'rb') as file:
        start = file.read(512).lstrip().lower()
    if start.startswith(b'version https://git-lfs'):
        return 'only the pointer that Git LFS keeps in the place of a file; run git lfs pull'
    if start.startswith((b'<!doctype', b'<html', b'<?xml')):
        return f'a web page; {_AGAIN}'
    if start.startswith(b'pk\x03\x04') and not zipfile.is_zipfile(path):  # its list is at its end
        return f'cut short, damaged, or not what torch.save writes; {_AGAIN}'
    if path.suffix == '.tar' and tarfile.is_tarfile(path):
        return 'a tar archive; unpack it and name the file in it'
    return ''


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='numpy') as file:
            for name in file.keys():
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _SAFETENSORS:
                    raise _wrong_dtype(path, name, dtype)
            return {name: _plain(file.get_tensor(name)) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise StageError(
            f'{path} is not a complete safetensors file ({error}); {_AGAIN}'
        ) from error


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    import torch

    content = _unwrap(path, _load_torch(path))
    floats = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    others = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    arrays = {}
    for name, tensor in content.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        if tensor.dtype not in floats | others or tensor.layout != torch.strided or tensor.is_meta:
            raise _wrong_dtype(path, name, str(tensor.dtype))
        tensor = tensor.detach()
        arrays[name] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return arrays


def _load_torch(path: Path) -> Any:
    """Return the content of a file that `torch.save` wrote."""
    import torch

    try:
        is_zip = zipfile.is_zipfile(path)  # only this format can be memory-mapped
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location='cpu', weights_only=True, mmap=is_zip)
    except Exception as error:
        text = str(error)
        refused = re.search(r'GLOBAL ([\w.]+)', text)
        if refused or 'TorchScript' in text:
            what = f'the class {refused[1]}' if refused else 'TorchScript'
            raise StageError(
                f'{path} cannot be read without running code that it may contain ({what}); '
                'save only its state_dict, or save it as safetensors'
            ) from error
        reason = ' '.join(text.split())[:100] or type(error).__name__
        raise StageError(
            f'{path} cannot be read: it is cut short, damaged, or not what torch.save writes '
            f'({reason}); {_AGAIN}'
        ) from error


def _harmless() -> list:
    """Return what trainers save beside the weights: their arguments, and scores as NumPy numbers.

    None of these runs code from the file.
    """
    scalar = np.float64(0).__reduce__()[0]
    numbers = [(scalar, f'{core}.multiarray.scalar') for core in NUMPY_CORES]
    return [argparse.Namespace, np.dtype, *numbers, *map(type, map(np.dtype, '?ilqefd'))]


def _unwrap(path: Path, content: Any) -> Mapping:
    """Return the innermost mapping from names to arrays."""
    while isinstance(content, Mapping):
        key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            return content
        if key in AVERAGED:
            logging.info('%s: reading the averaged weights, %r', path, key)
        content = content[key]
    raise StageError(f'{path} holds a {type(content).__name__}; expected arrays by name')


def _wrong_dtype(path: Path, name: str, dtype: str) -> StageError:
    return StageError(
        f'{path} cannot be used: its array {name} is {dtype}; expected float32, float16 or '
        'bfloat16. Take the checkpoint that was not quantised, or save it in one of these'
    )
