"""Batch sizes that are given per device.

`batch_per_device` in the sections `pretrain` and `train` sets `batch_size`. The size decides what
is learned, so once a stage has begun, the run keeps it: batches.json in the workdir stores it, and
the same command on other devices, or one that only asks the trained model, uses the stored size.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.system import hosts
from amuse_jax.system.files import write_json
from amuse_jax.training import fitting, sharding

FILE = 'batches.json'


def resolve(
    config: ConfigDict, workdir: Path, count_devices: Callable[[], int]
) -> tuple[ConfigDict, dict[str, dict]]:
    """Return the config with the batch sizes that `batch_per_device` stands for, and these sizes.

    A run passes the sizes to `store` when it holds the lock of the workdir. In the returned config
    `batch_per_device` is 0, so it equals a config with these `batch_size`s. All processes of a run
    must call this.

    Args:
      config: the run's config.
      workdir: the run's folder.
      count_devices: returns the number of devices of all processes; called only if a size is
        neither given nor stored.

    Raises:
      StageError: the mesh does not match the devices, or batches.json cannot be read.
    """
    wanted = {name: config[name].batch_per_device for name in fitting.STAGES}
    if not any(wanted.values()):
        return config, {}
    config = config.copy_and_resolve_references()
    stored = _read(workdir / FILE)
    sizes = {}
    for name, per_device in wanted.items():
        if not per_device:
            continue
        before = stored.get(name, {})
        has_begun = any(workdir.glob(f'{name}*'))  # also an ablation, such as train-without-rois
        if has_begun and before.get('per_device') == per_device:
            size = before['batch_size']
        else:
            shape = sharding.mesh_shape(config.mesh, count_devices(), is_alone=hosts.count() == 1)
            size = per_device * shape[0] * shape[1]
        size = hosts.broadcast_from_first(size)
        sizes[name] = {'per_device': per_device, 'batch_size': size}
        config[name].update(batch_size=size, batch_per_device=0)
        logging.info('%s: %d videos in a batch (batch_per_device=%d)', name, size, per_device)
    return config, sizes


def store(workdir: Path, sizes: Mapping[str, Mapping]) -> None:
    """Write the sizes that `resolve` has returned into the workdir."""
    stored = _read(workdir / FILE)
    if stored | sizes != stored:
        write_json(workdir / FILE, stored | sizes)


def _read(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text('utf-8'))
        return {
            name: {key: int(sizes[key]) for key in ('per_device', 'batch_size')}
            for name, sizes in stored.items()
        }
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f'{path} does not hold the batch sizes of this run ({error}); delete it, and set '
            '--config.train.batch_size and --config.pretrain.batch_size to those of the run'
        ) from error
