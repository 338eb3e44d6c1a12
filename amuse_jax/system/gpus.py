"""NVIDIA GPUs that this process may use, found without starting CUDA, PyTorch or JAX.

A process that only hands out work must not start CUDA, because that takes memory of a GPU, and with
JAX most of it.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

VISIBLE = 'CUDA_VISIBLE_DEVICES'


def visible(environment: Mapping[str, str] = os.environ, root: Path = Path('/')) -> list[str]:
    """Return the names of the GPUs as CUDA_VISIBLE_DEVICES takes them.

    Args:
      environment: the environment variables; tests use others.
      root: the root of the file system; tests use another one.

    Returns:
      The entries of CUDA_VISIBLE_DEVICES if it is set, else the numbers of the GPUs whose device
      files exist. Empty if there is none.
    """
    chosen = environment.get(VISIBLE)
    if chosen is not None:
        names = [name.strip() for name in chosen.split(',')]
        # CUDA ignores everything from the first entry on that names no GPU, such as -1.
        end = next((i for i, name in enumerate(names) if not name or name.startswith('-')), None)
        return names[:end]
    names = [path.name for path in (root / 'dev').glob('nvidia*')]
    count = sum(re.fullmatch(r'nvidia\d+', name) is not None for name in names)
    return [str(number) for number in range(count)]


def see_only(name: str) -> None:
    """Let this process see one GPU only. Call this before CUDA, PyTorch or JAX starts.

    JAX then takes memory as it needs it: another process, such as the parent, may use the same GPU.
    """
    os.environ[VISIBLE] = name
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
