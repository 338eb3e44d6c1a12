"""Where arrays live: the one place that knows the devices.

The mesh has three axes. The videos of a batch are shared out over `data` and `fsdp`. Parameters,
frozen ones and the optimiser's state too, lie shared out over `fsdp` and are gathered at the start
of a step. `tensor` shares out the hidden layers of the MLPs. Attention is not split: queries, keys
and values come from one product, and the heads of the first stages rarely divide.

Models know nothing of this. What the axes of a parameter are follows from its name (PARAMETERS),
and which axis of the mesh shares them from LOGICAL. XLA's partitioner does the rest.
"""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from amuse_jax.errors import StageError
from amuse_jax.models import platform
from amuse_jax.training.state import Arrays, TrainState

AXES = ('data', 'fsdp', 'tensor')

# What an axis of an array stands for -> the axes of the mesh that share it out.
LOGICAL = {'videos': ('data', 'fsdp'), 'width': 'fsdp', 'hidden': 'tensor'}

# Parameters' names -> what their last axes are, None: every device holds it whole. The first
# pattern that is found decides. Axes before those count layers or towers: no device has its own.
PARAMETERS = (
    (r'\b(inner|hidden\.\d)\.kernel$', ('width', 'hidden')),
    (r'\b(inner|hidden\.\d)\.bias$', ('hidden',)),
    (r'\b(outer|attended\.\d)\.kernel$', ('hidden', 'width')),
    # Few columns, whatever the width: one per answer, instrument, head, stream or count.
    (r'\b(bias_outer|third|choice|prefer|highway\.count)\.kernel$', ('width', None)),
    (r'\b(kernel|embedding)$', (None, 'width')),
    (r'\b(bias|scale|mean|variance|(query|value)_bias|logit_scale|bias_table)$', ()),
    (r'\b(token_type|probes|role|sink|found|time|stream|rhythm|sharpness|threshold)$', ()),
)


def mesh(settings: Mapping[str, int], devices: Sequence[Any] = ()) -> Mesh:
    """The mesh of a config's section `mesh`; a size of -1 takes all devices that are left.

    A single process may leave devices aside.

    Args:
      settings: the sizes of AXES.
      devices: to choose from, such as those of a topology that is compiled for; none: jax's.

    Raises:
      StageError: the sizes do not fit the devices.
    """
    devices, sizes = devices or jax.devices(), {axis: settings[axis] for axis in AXES}
    given = ', '.join(f'{axis}={size}' for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or known == 0 or min(sizes.values()) < -1:
        raise StageError(f'config.mesh is {given}; expected positive sizes, and -1 at most once')
    sizes |= {axis: len(devices) // known for axis in free}
    count = math.prod(sizes.values())
    leaves_some = not free and jax.process_count() == 1
    if count != len(devices) and not (leaves_some and count < len(devices)):
        raise StageError(
            f'config.mesh is {given}, but there are {len(devices)} devices; expected sizes whose '
            f'product is {len(devices)}'
        )
    shape = tuple(sizes.values())
    return jax.make_mesh(shape, AXES, (AxisType.Auto,) * len(AXES), devices=devices[:count])


def single() -> Mesh:
    """The mesh of one device."""
    return mesh(dict.fromkeys(AXES, 1))


def spec(name: str, shape: Sequence[int]) -> PartitionSpec:
    """How a parameter is shared out: an axis of the mesh, or None, per axis of its shape.

    Raises:
      StageError: no pattern of PARAMETERS fits its name and shape.
    """
    for pattern, logical in PARAMETERS:
        if re.search(pattern, name) and len(logical) <= len(shape):
            axes = (each and LOGICAL[each] for each in logical)
            return PartitionSpec(*(None,) * (len(shape) - len(logical)), *axes)
    raise StageError(
        f'the parameter {name} of shape {tuple(shape)} fits no pattern of '
        'amuse_jax.training.sharding.PARAMETERS; add one that says what its axes are'
    )


def of_parameters(arrays: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """The shardings of parameters, or of anything else under their names.

    Raises:
      StageError: an axis is not divisible by the devices that are to share it; the message names
        the parameter.
    """
    shardings = {}
    for name, array in arrays.items():
        shardings[name] = NamedSharding(mesh, spec(name, array.shape))
        for size, axis in zip(array.shape, shardings[name].spec):
            if axis is not None and size % mesh.shape[axis]:
                raise StageError(
                    f'the parameter {name} has shape {tuple(array.shape)}, whose {size} the '
                    f'{mesh.shape[axis]} devices along {axis} cannot share evenly; set '
                    f'--config.mesh.{axis} to a divisor of {size}'
                )
    return shardings


def of_state(state: TrainState, mesh: Mesh) -> TrainState:
    """The shardings of a training state: the optimiser's moments are where their parameters are."""
    parameters, everywhere = of_parameters(state.params, mesh), whole(mesh)

    def moment(path, _):
        last = path[-1]
        return parameters.get(getattr(last, 'key', None), everywhere)

    rest = jax.tree.map(lambda _: everywhere, state)
    optimizer = jax.tree_util.tree_map_with_path(moment, state.opt_state)
    return rest._replace(params=parameters, opt_state=optimizer)


def whole(mesh: Mesh) -> NamedSharding:
    """Of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def gathered(arrays: Arrays, mesh: Mesh) -> Arrays:
    """Inside a compiled function: parameters, no longer shared out over `fsdp`.

    Left to itself, the partitioner would rather share out the activations' width than gather
    parameters, and exchange activations in every layer.
    """
    if mesh.shape['fsdp'] == 1:
        return arrays

    def gather(name, array):
        axes = (None if axis == 'fsdp' else axis for axis in spec(name, array.shape))
        return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, PartitionSpec(*axes)))

    return {name: gather(name, array) for name, array in arrays.items()}


def shared_out(mesh: Mesh) -> contextlib.ContextDecorator:
    """Of a function to be compiled: its batches are shared out, also in kernels."""
    return platform.batches_over(mesh, LOGICAL['videos'])


def put(tree, shardings):
    """Moves arrays to where `shardings`, one or a tree of them, say.

    Arrays that only this process has so far must be the same in every process.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def move(array, sharding):
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            return jax.device_put(array, sharding)
        local = np.asarray(array)
        return jax.make_array_from_callback(local.shape, sharding, lambda index: local[index])

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda array: move(array, shardings), tree)
    return jax.tree.map(move, tree, shardings)


def shapes(arrays: Mapping[str, Any], shardings) -> dict[str, jax.ShapeDtypeStruct]:
    """Arrays, or their shapes, as templates to restore into.

    Args:
      arrays: by name.
      shardings: one for all, or one per name.
    """
    if isinstance(shardings, NamedSharding):
        shardings = dict.fromkeys(arrays, shardings)
    return {name: shape(array, shardings[name]) for name, array in arrays.items()}


def shape(array: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """What stands for an array, or for its shape, that is shared out."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def shares(mesh: Mesh) -> int:
    """Into how many parts a batch is shared out."""
    return math.prod(mesh.shape[axis] for axis in LOGICAL['videos'])


def filled_up(videos: int, mesh: Mesh) -> int:
    """The next larger number of videos that can be shared out evenly, for padded batches."""
    return videos + -videos % shares(mesh)


def rows(videos: int, mesh: Mesh) -> tuple[int, ...]:
    """Which rows of every batch of `videos` the devices of this process hold: those it reads.

    Raises:
      StageError: the videos cannot be shared out evenly.
    """
    if videos % shares(mesh):
        raise StageError(
            f'a batch holds {videos} videos, which {shares(mesh)} devices (mesh.data times '
            f'mesh.fsdp) cannot share evenly; set batch_size to a multiple of {shares(mesh)}'
        )
    held = of_batches(mesh).addressable_devices_indices_map((videos,)).values()
    return tuple(sorted({row for (index,) in held for row in range(*index.indices(videos))}))


def check_parts(videos: int, parts: int, mesh: Mesh) -> None:
    """Whether every part of a batch of `videos` can be shared out, too.

    Raises:
      StageError: it cannot.
    """
    if videos % (parts * shares(mesh)):
        raise StageError(
            f'{videos} videos in {parts} parts (train.parts) cannot be shared out evenly to '
            f'{shares(mesh)} devices; expected a batch_size that is a multiple of '
            f'{parts * shares(mesh)}'
        )


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Arrays:
    """The whole batch, shared out by its leading axis (videos), from every process's `rows`."""
    return jax.make_array_from_process_local_data(of_batches(mesh), dict(batch))


def fetch(tree):
    """Arrays as NumPy arrays, whole, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def of_batches(mesh: Mesh) -> NamedSharding:
    """Of a batch's arrays, whose leading axis counts videos."""
    return NamedSharding(mesh, PartitionSpec(LOGICAL['videos']))
