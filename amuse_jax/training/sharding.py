"""Where arrays live: the one place that puts batches and parameters on devices."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from amuse_jax.stages import StageError

AXES = ('data', 'fsdp', 'tensor')


def mesh() -> Mesh:
    """All devices along `data`."""
    return jax.make_mesh((len(jax.devices()), 1, 1), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicate(tree, mesh: Mesh):
    """The tree's arrays, whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """A batch with its leading axis (videos) spread over `data`.

    Raises:
      StageError: the number of videos is not a multiple of the devices along `data`.
    """
    videos, devices = len(next(iter(batch.values()))), mesh.shape['data']
    if videos % devices:
        raise StageError(
            f'a batch holds {videos} videos, which {devices} devices cannot share evenly; '
            f'set batch_size to a multiple of {devices}'
        )
    return jax.device_put(dict(batch), NamedSharding(mesh, PartitionSpec('data')))
