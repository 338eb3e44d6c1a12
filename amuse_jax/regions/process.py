"""The process that runs the detector. PyTorch is imported there alone, not beside JAX."""

import importlib.util
import signal
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.regions import environment
from amuse_jax.system.processes import Process, without_main_module

_PACKAGES = ('torch', 'torchvision', 'ultralytics')


def create() -> Process:
    """Return a process for the detector; it starts with its first call."""
    return Process('rois', 'a smaller rois.image_size')


class RegionProcess:
    """Finds the regions of one video after another with a trained detector.

    Args:
      config: the whole config; `rois` and `data` are read.
      detector_path: the detector's weights.
      process: the process to use, from `start_early`; None for a new one.

    Raises:
      StageError: a package that the detector needs is not installed.
    """

    def __init__(self, config: ConfigDict, detector_path: Path, process: Process | None = None):
        _require_packages('give the regions of the video')
        self._config, self._detector_path = config, detector_path
        self._process = process or _start_alone()
        self._process.submit(_load, config, detector_path)

    def find(self, path: Path) -> dict[str, np.ndarray]:
        """Find the regions of a video.

        Returns:
          'boxes' (T, K, 4), 'classes' (T, K), 'scores' (T, K) and 'features' (T, K, D), with the
          dtypes of the stage's arrays.

        Raises:
          MediaError: the video cannot be read.
          RuntimeError: the process died; the next call starts another one.
        """
        try:
            return self._process.call(_find, self._config, self._detector_path, path)
        except RuntimeError:
            self._process = _start_alone()
            raise

    def close(self) -> None:
        """End the process."""
        self._process.end()


def start_early() -> Process | None:
    """Start a process that imports the detector's packages, which takes seconds.

    The weights are read when a RegionProcess takes the process over.

    Returns:
      The process; None if a package is not installed.
    """
    if _missing_packages():
        return None
    process = _start_alone()
    process.submit(_import)
    return process


def _start_alone() -> Process:
    """Start a process for any program, whose main module it does not import."""
    process = create()
    with without_main_module():
        process.submit(environment.set_up)
    return process


def make_portable(source: Path, target: Path) -> None:
    """Write a detector's weights as safetensors, with its sizes and class names (detector.py).

    Args:
      source: a checkpoint of ultralytics.
      target: the .safetensors file.

    Raises:
      StageError: the packages of the detector are not installed, or `source` is no detector that
        can be written so.
    """
    _require_packages('export the model on a machine that has them')
    with create() as process:
        process.call(_make_portable, source, target)


def _missing_packages() -> list[str]:
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def _require_packages(alternative: str) -> None:
    missing = _missing_packages()
    if missing:
        raise StageError(
            f'this model looks at regions of interest, and its detector needs the package '
            f'{" and ".join(missing)}; install them (pip install "amuse_jax[offline]"), or '
            f'{alternative}'
        )


def _make_portable(source: Path, target: Path) -> None:
    environment.set_up()
    from amuse_jax.regions import detector  # imports PyTorch

    detector.save_portable(detector.load(source), target)


def _import() -> None:
    environment.set_up()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    import amuse_jax.regions.finder  # noqa: F401


def _load(config: ConfigDict, detector_path: Path) -> None:
    _import()
    from amuse_jax.regions.finder import Finder  # imports PyTorch

    Finder.from_settings(config, detector_path).no_regions()


def _find(config: ConfigDict, detector_path: Path, path: Path) -> dict[str, np.ndarray]:
    environment.set_up()
    from amuse_jax.regions.finder import Finder  # imports PyTorch

    return Finder.from_settings(config, detector_path).find(path)
