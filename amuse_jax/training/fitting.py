"""Whether the devices can share a run's batches and parameters, known before the first stage.

The stages make the same checks, but preparing the videos takes hours before the first of them.
"""

import math
from collections.abc import Collection

from absl import logging
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from amuse_jax.errors import StageError
from amuse_jax.models import summary
from amuse_jax.training import sharding, state
from amuse_jax.training.peers import summary as peer_summary

STAGES = ('pretrain', 'train')


def check(config: ConfigDict, stages: Collection[str], devices: int, *, is_alone: bool) -> None:
    """Check the mesh, the batches and, if they are sharded, the parameters.

    Nothing is allocated, and JAX need not have these devices.

    Args:
      config: the run's config.
      stages: the names of the stages that will run.
      devices: the number of devices of all processes.
      is_alone: whether one process runs alone; it may leave some devices unused.

    Raises:
      StageError: the mesh does not match the devices, or it cannot share a batch or a parameter
        evenly; the message says which setting to change.
    """
    stages = [name for name in STAGES if name in stages]
    if not stages:
        return
    shape = sharding.mesh_shape(config.mesh, devices, is_alone=is_alone)
    mesh = AbstractMesh(shape, sharding.AXES)
    shards = sharding.num_batch_shards(mesh)
    if 'train' in stages and config.peer.name:
        stages = ['peer' if name == 'train' else name for name in stages]
    for name in stages:
        videos = config[name].batch_size
        if videos % shards:
            per_device = f'--config.{name}.batch_per_device=1 or more, or '
            raise StageError(
                f'config.{name}.batch_size is {videos}, which cannot be divided evenly over '
                f'{shards} devices (mesh.data times mesh.fsdp); set '
                f'{per_device if name in STAGES else ""}--config.{name}.batch_size to a multiple '
                f'of {shards}'
            )
    if 'train' in stages:
        sharding.check_parts(config.train.batch_size, config.train.parts or 1, mesh)
    if mesh.shape['fsdp'] * mesh.shape['tensor'] > 1:
        for model in _models(config, stages):
            _, params, frozen = state.split(model, '')
            sharding.parameter_shardings(params | frozen, mesh)
    logging.info(
        'mesh: %d of %d devices (%s); videos in a batch: %s',
        math.prod(shape), devices,
        ', '.join(f'{axis}={size}' for axis, size in mesh.shape.items()),
        ', '.join(f'{name} {config[name].batch_size}' for name in stages),
    )  # fmt: skip


def _models(config: ConfigDict, stages: Collection[str]) -> list:
    """Return the models that the stages train, with shapes instead of arrays."""
    universal, amuse = summary.abstract_models(config)
    if 'peer' not in stages:
        return [universal, amuse]
    return [*([universal] if 'pretrain' in stages else []), peer_summary.abstract(config)]
