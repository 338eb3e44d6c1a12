"""JAX's compiler for NVIDIA GPUs, from a folder of its own, on a host that may have no GPU.

The compiler is in two packages. They must not be installed into the environment of a host without
an NVIDIA driver, because JAX crashes there when it looks for GPUs. In a folder of their own, only a
process that calls `use` can see them. This module must not import JAX.

python -m amuse_jax.benchmark.plugin    # installs them into the default folder
"""

import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import platformdirs

from amuse_jax.errors import StageError

PACKAGES = 'jax-cuda13-plugin', 'jax-cuda13-pjrt'


def default_folder() -> Path:
    """Return the folder in which the packages are looked for."""
    return platformdirs.user_cache_path('amuse_jax') / 'cuda-plugin'


def requirements() -> list[str]:
    """Return the packages with their versions, which must be that of jaxlib."""
    version = metadata.version('jaxlib')
    return [f'{name}=={version}' for name in PACKAGES]


def install_options(folder: Path) -> list[str]:
    """Return the arguments of `pip install` that put the compiler into the folder."""
    return ['--no-deps', '--upgrade', f'--target={folder}', *requirements()]


def problem(folder: Path) -> str:
    """Return why the compiler cannot be used, with the command that helps; '' if it can be used."""
    found = {f'{each.name}=={each.version}' for each in metadata.distributions(path=[str(folder)])}
    if _is_installed() or found.issuperset(requirements()):
        return ''
    return (
        f"{folder} does not have JAX's compiler for GPUs in jaxlib's version; install it with: "
        f'pip install {" ".join(install_options(folder))}'
    )


def use(folder: Path) -> None:
    """Let this process find the compiler for GPUs, and compute on the CPU otherwise.

    Call this before JAX is imported.

    Raises:
      StageError: the folder does not have the packages, or those of another version.
    """
    if 'jax' in sys.modules:
        raise RuntimeError('call this before JAX is imported')
    if sentence := problem(folder):
        raise StageError(sentence)
    os.environ['JAX_PLATFORMS'] = 'cpu'  # without this, JAX crashes on a host without a driver
    if not _is_installed():
        sys.path.insert(0, str(folder))


def _is_installed() -> bool:
    """Return whether the environment itself has the compiler, as on a host with a GPU."""
    return importlib.util.find_spec('jax_cuda13_plugin') is not None


if __name__ == '__main__':  # install it, unless it is there
    if problem(default_folder()):
        pip = [sys.executable, '-m', 'pip', 'install', '--quiet']
        sys.exit(subprocess.run([*pip, *install_options(default_folder())]).returncode)
