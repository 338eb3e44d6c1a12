"""Sharding of parameters and batches over the device mesh: the only module that knows the devices.

The mesh has three axes. `data` and `fsdp` shard the videos of a batch. `fsdp` also shards the
parameters, both trainable and frozen, and the optimiser's state; a step gathers the parameters when
it starts. `tensor` shards the hidden layers of the MLPs. Attention is not sharded: queries, keys
and values come from one product, and the number of heads in the first stages is rarely divisible.

The models do not know about sharding. PARAMETERS gives the logical axes of a parameter by its name,
LOGICAL maps each logical axis to axes of the mesh, and XLA's partitioner does the rest.
"""

import contextlib
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from amuse_jax.errors import StageError
from amuse_jax.models import platform
from amuse_jax.training.state import Arrays, TrainState

AXES = ('data', 'fsdp', 'tensor')

# Logical axis of an array -> the axes of the mesh that shard it.
LOGICAL = {'videos': ('data', 'fsdp'), 'width': 'fsdp', 'hidden': 'tensor'}

# Pattern of a parameter's name -> logical names of its last axes; None: this axis is not sharded.
# The first pattern that matches decides. Axes before the last ones count layers or towers and are
# never sharded.
PARAMETERS = (
    (r'\b(inner|hidden\.\d)\.kernel$', ('width', 'hidden')),
    (r'\b(inner|hidden\.\d)\.bias$', ('hidden',)),
    (r'\b(outer|attended\.\d)\.kernel$', ('hidden', 'width')),
    # The output has few columns at any width: one per answer, instrument, head, stream or count.
    (r'\b(bias_outer|third|choice|prefer|highway\.count)\.kernel$', ('width', None)),
    (r'\b(answer|position|match\.3)\.kernel$', ('width', None)),  # of the peers
    (r'\b(kernel|embedding)$', (None, 'width')),
    (r'\b(bias|scale|mean|variance|(query|value)_bias|logit_scale|bias_table)$', ()),
    (r'\b(token_type|probes|role|sink|found|time|stream|rhythm|sharpness|threshold)$', ()),
    (r'\b(latents|(\w+_)?gate)$', ()),  # of the peers
)


def mesh(settings: Mapping[str, int], devices: Sequence[Any] = ()) -> Mesh:
    """Return the mesh that the config's section `mesh` describes.

    A size of -1 means all remaining devices. A single process may leave some devices unused.

    Args:
      settings: the size of each axis in AXES.
      devices: the devices to choose from, for example those of a topology to compile for; empty:
        the devices of this JAX run.

    Raises:
      StageError: the sizes do not match the number of devices.
    """
    devices = devices or jax.devices()
    shape = mesh_shape(settings, len(devices), is_alone=jax.process_count() == 1)
    devices = devices[: math.prod(shape)]
    return jax.make_mesh(shape, AXES, (AxisType.Auto,) * len(AXES), devices=devices)


def mesh_shape(settings: Mapping[str, int], devices: int, *, is_alone: bool) -> tuple[int, ...]:
    """Return the size of each axis in AXES of the mesh that the config's section `mesh` describes.

    Args:
      settings: the size of each axis; -1 means all remaining devices.
      devices: the number of devices of all processes.
      is_alone: whether one process runs alone; it may leave some devices unused.

    Raises:
      StageError: the sizes do not match the number of devices.
    """
    sizes = {axis: settings[axis] for axis in AXES}
    given = ', '.join(f'{axis}={size}' for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or known == 0 or min(sizes.values()) < -1:
        raise StageError(f'config.mesh is {given}; expected positive sizes, and -1 at most once')
    sizes |= {axis: devices // known for axis in free}
    count = math.prod(sizes.values())
    leaves_some = not free and is_alone
    if count != devices and not (leaves_some and count < devices):
        raise StageError(
            f'config.mesh is {given}, but there are {devices} devices; expected sizes whose '
            f'product is {devices}'
        )
    return tuple(sizes.values())


def single_device_mesh() -> Mesh:
    """Return a mesh that contains one device."""
    return mesh(dict.fromkeys(AXES, 1))


def spec(name: str, shape: Sequence[int]) -> PartitionSpec:
    """Return how a parameter is sharded: for each of its axes an axis of the mesh, or None.

    Raises:
      StageError: no pattern in PARAMETERS matches the name and the shape.
    """
    for pattern, logical in PARAMETERS:
        if re.search(pattern, name) and len(logical) <= len(shape):
            axes = (each and LOGICAL[each] for each in logical)
            return PartitionSpec(*(None,) * (len(shape) - len(logical)), *axes)
    raise StageError(
        f'the parameter {name} of shape {tuple(shape)} matches no pattern in '
        'amuse_jax.training.sharding.PARAMETERS; add a pattern that names its axes'
    )


def parameter_shardings(arrays: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """Return the sharding of every parameter, by name.

    Args:
      arrays: the parameters, or other arrays of the same names and shapes.
      mesh: the device mesh.

    Raises:
      StageError: an axis is not divisible by the number of devices that shard it; the message
        names the parameter.
    """
    shardings = {}
    for name, array in arrays.items():
        shardings[name] = NamedSharding(mesh, spec(name, array.shape))
        for size, axis in zip(array.shape, shardings[name].spec):
            if axis is not None and size % mesh.shape[axis]:
                raise StageError(
                    f'the parameter {name} has shape {tuple(array.shape)}; its axis of size {size} '
                    f'cannot be divided evenly over the {mesh.shape[axis]} devices along {axis}; '
                    f'set --config.mesh.{axis} to a divisor of {size}'
                )
    return shardings


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Return the shardings of a training state.

    The optimiser's moments have the shardings of their parameters. Everything else is replicated.
    """
    by_name, everywhere = parameter_shardings(state.params, mesh), replicated(mesh)

    def moment_sharding(path, _):
        last = path[-1]
        return by_name.get(getattr(last, 'key', None), everywhere)

    shardings = jax.tree.map(lambda _: everywhere, state)
    opt_state = jax.tree_util.tree_map_with_path(moment_sharding, state.opt_state)
    return shardings._replace(params=by_name, opt_state=opt_state)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array of which every device holds a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def gather_params(arrays: Arrays, mesh: Mesh) -> Arrays:
    """Return the parameters gathered over `fsdp`. Call this inside a compiled function.

    Without this constraint, the partitioner shards the width of the activations instead of
    gathering the parameters, and exchanges activations in every layer.
    """
    if mesh.shape['fsdp'] == 1:
        return arrays

    def gather(name, array):
        axes = (None if axis == 'fsdp' else axis for axis in spec(name, array.shape))
        return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, PartitionSpec(*axes)))

    return {name: gather(name, array) for name, array in arrays.items()}


def sharded_batches(mesh: Mesh) -> contextlib.ContextDecorator:
    """Return a decorator that tells the kernels of a function that its batches are sharded.

    Use it on functions that are compiled for the mesh.
    """
    return platform.batch_sharded_over(mesh, LOGICAL['videos'])


def on_whole_batch(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Return `function(0, *arguments)`; the partitioner decides what the devices exchange."""
    return sharded_batches(mesh)(functools.partial(function, 0))


def sum_over_shards(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Return a function that sums `function` over the shards of a batch.

    Each device calls `function` with its own videos. The results are exchanged once, at the end.

    Args:
      function: `function(shard, params, frozen, batch, key)` returns a tree of arrays for some
        videos of the batch. `shard` is the number of their shard.
      mesh: the device mesh.

    Returns:
      `total(params, frozen, batch, key)`, for the whole batch and gathered parameters.
    """
    if num_batch_shards(mesh) == 1:
        return on_whole_batch(function, mesh)
    axes = LOGICAL['videos']

    splits_layers = mesh.shape['tensor'] > 1

    def sum_of_shards(*arguments):
        # The partitioner splits the layers over `tensor`, but no kernel: each device of that axis
        # must run it on all videos of its shard.
        context = platform.batch_sharded_over(jax.sharding.get_abstract_mesh(), ())
        with context if splits_layers else contextlib.nullcontext():
            result = function(jax.lax.axis_index(axes), *arguments)
        return jax.lax.psum(result, axes)

    everywhere = PartitionSpec()
    return jax.shard_map(
        sum_of_shards,
        mesh=mesh,
        in_specs=(everywhere, everywhere, PartitionSpec(axes), everywhere),
        out_specs=everywhere,
        axis_names=set(axes if splits_layers else AXES),
        check_vma=False,
    )


def shard_params(tree, shardings):
    """Move parameters, or any other tree of arrays, to the devices.

    Args:
      tree: the arrays. An array that only this process holds must be equal in every process.
      shardings: one sharding for all arrays, or a tree of shardings like `tree`.
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


def abstract_arrays(arrays: Mapping[str, Any], shardings) -> dict[str, jax.ShapeDtypeStruct]:
    """Return a template for restoring each array: its shape, dtype and sharding.

    Args:
      arrays: arrays or shapes, by name.
      shardings: one sharding for all arrays, or one for each name.
    """
    if isinstance(shardings, NamedSharding):
        shardings = dict.fromkeys(arrays, shardings)
    return {name: abstract_array(array, shardings[name]) for name, array in arrays.items()}


def abstract_array(array: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """Return the shape, dtype and sharding of an array; `array` may itself be a shape."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def num_batch_shards(mesh: Mesh) -> int:
    """Return the number of shards into which the mesh divides a batch."""
    return math.prod(mesh.shape[axis] for axis in LOGICAL['videos'])


def padded_batch_size(videos: int, mesh: Mesh) -> int:
    """Return the size of a batch padded with videos until the mesh can divide it evenly."""
    return videos + -videos % num_batch_shards(mesh)


def local_rows(videos: int, mesh: Mesh) -> tuple[int, ...]:
    """Return which rows of a batch of `videos` this process reads: those that its devices hold.

    Raises:
      StageError: the videos cannot be divided evenly over the devices.
    """
    if videos % num_batch_shards(mesh):
        raise StageError(
            f'a batch holds {videos} videos, which cannot be divided evenly over '
            f'{num_batch_shards(mesh)} devices (mesh.data times mesh.fsdp); set batch_size to a '
            f'multiple of {num_batch_shards(mesh)}'
        )
    local = batch_sharding(mesh).addressable_devices_indices_map((videos,)).values()
    return tuple(sorted({row for (index,) in local for row in range(*index.indices(videos))}))


def check_parts(videos: int, parts: int, mesh: Mesh) -> None:
    """Check that the devices can share every part of a batch of `videos` evenly.

    Raises:
      StageError: they cannot.
    """
    if videos % (parts * num_batch_shards(mesh)):
        raise StageError(
            f'{videos} videos in {parts} parts (train.parts) cannot be divided evenly over '
            f'{num_batch_shards(mesh)} devices; expected a batch_size that is a multiple of '
            f'{parts * num_batch_shards(mesh)}'
        )


def possible_parts(videos: int, mesh: Mesh, at_least: int = 1) -> list[int]:
    """Return the numbers of parts that `check_parts` accepts, in ascending order.

    Args:
      videos: videos in a batch.
      mesh: the device mesh.
      at_least: the smallest number of parts; if none is as large, the largest is returned.
    """
    share = videos // num_batch_shards(mesh)
    parts = [each for each in range(1, share + 1) if share % each == 0]
    return [each for each in parts if each >= at_least] or parts[-1:]


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Arrays:
    """Return a batch sharded by its leading axis (videos).

    Args:
      batch: the rows that this process has read, which `local_rows` lists.
      mesh: the device mesh.
    """
    return jax.make_array_from_process_local_data(batch_sharding(mesh), dict(batch))


def fetch(tree):
    """Return the arrays as complete NumPy arrays, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch's arrays: their leading axis (videos) is sharded."""
    return NamedSharding(mesh, PartitionSpec(LOGICAL['videos']))
