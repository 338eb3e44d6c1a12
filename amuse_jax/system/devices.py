"""The devices of JAX: how many there are, and one sentence where JAX cannot start.

Starting JAX takes memory of every GPU and locks a TPU. The stages before training leave both to
other processes, so this module can count the devices without starting JAX in this process.
"""

import concurrent.futures
import multiprocessing
import os
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.system import gpus, hosts
from amuse_jax.system.processes import end_with_parent

PLATFORMS = 'JAX_PLATFORMS'


def start() -> int:
    """Start JAX in this process, and return the number of devices of all processes.

    Raises:
      StageError: JAX cannot start.
    """
    import jax

    try:
        return len(jax.devices())
    except (AssertionError, RuntimeError) as error:  # JAX has a bare assertion for a missing plugin
        chosen = os.environ.get(PLATFORMS)
        reason = ' '.join(str(error).split()) or 'it finds no device of this platform'
        advice = "for NVIDIA GPUs run pip install '.[cuda]', for TPUs pip install '.[tpu]'"
        if chosen:
            advice = f'unset {PLATFORMS}, or set it to a platform of this machine (cpu); {advice}'
        raise StageError(
            f'JAX cannot start: {PLATFORMS} is {chosen or "not set"!r}, and {reason}; {advice}'
        ) from error


def count() -> int:
    """Return the number of JAX's devices of all processes.

    One process alone on a host with an accelerator asks another process, which ends at once, so
    that the accelerator stays free. Where the accelerator cannot be kept free (several processes)
    or there is none, JAX is started here.

    Raises:
      StageError: JAX cannot start.
    """
    if hosts.count() > 1 or not _has_accelerator():
        return start()
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=end_with_parent
    ) as pool:
        return pool.submit(start).result()


def _has_accelerator(root: Path = Path('/')) -> bool:
    tpus = (*(root / 'dev').glob('accel*'), *(root / 'dev/vfio').glob('[0-9]*'))
    return bool(gpus.visible(root=root) or tpus) and os.environ.get(PLATFORMS) != 'cpu'
