"""Orbax checkpoints of the training state, the frozen arrays and the best parameters.

    FOLDER/checkpoints/STEP/{params,rest,progress}   the newest few, with the data iterator's state
    FOLDER/frozen/                                   arrays that never change, saved once
    FOLDER/best/NUMBER/{params,record}               the parameters with the best validation score

A checkpoint appears when its folder is renamed, so a kill leaves no incomplete one. The newest
few and the best also hold a checksum of their content. If the newest checkpoint cannot be read, it
is renamed to checkpoints/damaged-STEP, which nothing reads, and the one before it is restored.
Checkpoints do not depend on the devices or hosts that wrote them.
"""

import json
import math
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from amuse_jax.errors import StageError
from amuse_jax.system import formats, hosts
from amuse_jax.system.files import rename
from amuse_jax.training.state import Arrays, TrainState

# What Orbax and TensorStore raise for a damaged file, and Grain for an invalid iterator state.
DAMAGE = (ValueError, KeyError, TypeError, OSError, AttributeError)


class Checkpoints:
    """Writes checkpoints to `folder` in the background and keeps the newest `keep` of them."""

    def __init__(self, folder: Path, keep: int):
        self._manager = _manager(folder, keep)

    def save(self, state: TrainState, iterator: Any, progress: Mapping[str, Any]) -> None:
        """Save the state, the data iterator and `progress` (JSON values) under the state's step."""
        trees = _trees(state)
        progress = {**progress, 'iterator': iterator.get_state()}
        digest = _digest(trees, progress)
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
                progress=_json({**progress, 'digest': digest}),
            ),
        )

    def restore(
        self, template: TrainState, make_iterator: Callable[[dict], Any]
    ) -> tuple[TrainState, Any, dict] | None:
        """Restore the newest intact checkpoint; damaged ones are logged and renamed.

        If there are several processes, the one that finds damage exits with hosts.RESTART_STATUS,
        because the others may have read their own parts without an error and wait for this one.

        Args:
          template: a state of the same shapes and shardings.
          make_iterator: returns a new data iterator for the progress in a checkpoint.

        Returns:
          State, iterator and progress, or None if there is no intact checkpoint.

        Raises:
          StageError: a newer version of amuse_jax wrote the checkpoint.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._restore(step, template, make_iterator)
            except DAMAGE as error:
                message = _set_aside(Path(self._manager.directory) / str(step), error)
                if hosts.count() > 1:
                    hosts.exit_at_once(
                        f'amuse_jax: {message}; all processes must start again',
                        hosts.RESTART_STATUS,
                    )
                logging.warning('%s; restoring the checkpoint before it', message)
                self._manager.reload()
        return None

    def _restore(
        self, step: int, template: TrainState, make_iterator: Callable[[dict], Any]
    ) -> tuple[TrainState, Any, dict]:
        progress = _read_json(self._manager, step, 'progress')
        digest = progress.pop('digest')
        targets = {
            name: ocp.args.StandardRestore(_shapes(tree)) for name, tree in _trees(template).items()
        }
        restored = self._manager.restore(step, args=ocp.args.Composite(**targets))
        trees = {name: restored[name] for name in targets}
        _check_digest(digest, trees, progress)
        iterator = make_iterator(progress)
        iterator.set_state(progress.pop('iterator'))
        state = TrainState(params=trees['params'], **trees['rest'])
        if int(state.step) != step:
            raise ValueError(f'it holds step {int(state.step)}')
        return state, iterator, progress

    def close(self) -> None:
        """Wait until everything is written, then close."""
        self._manager.wait_until_finished()
        self._manager.close()


class Best:
    """Keeps the parameters with the best validation score so far in `folder`.

    Args:
      folder: the folder.
      is_lowest: whether the lowest score is the best; else the highest is.
    """

    def __init__(self, folder: Path, is_lowest: bool = False):
        self._sign = -1 if is_lowest else 1
        self._manager = _manager(folder, keep=1)
        self.record = _read_record(self._manager)

    def save_if_best(self, score: float, params: Arrays, record: Mapping[str, Any]) -> None:
        """Save `params` with `record` (JSON values) if `score` is better than the best score.

        A score that is NaN is worse than any other.

        The best score is read from the folder. A resumed run may therefore find a score of a later
        step than its own. It keeps that score, because the same steps will lead to it again.
        """
        best = math.nan if self.record is None else self.record['score']
        if not math.isnan(best) and not self._sign * score > self._sign * best:
            return
        self.record = {**record, 'score': score}
        digest = _digest({'params': params}, self.record)
        self._manager.save(
            (self._manager.latest_step() or 0) + 1,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                record=_json({**self.record, 'digest': digest}),
            ),
        )

    def close(self) -> None:
        """Wait until everything is written, then close."""
        self._manager.wait_until_finished()
        self._manager.close()


def has_best(folder: Path) -> bool:
    """Return whether a Best has saved parameters in `folder`."""
    return folder.is_dir() and any(each.name.isdigit() for each in folder.iterdir())


def read_best(folder: Path, template: Mapping[str, Any]) -> tuple[Arrays, dict]:
    """Read the best parameters and their record (`score`, `step`, ...).

    Args:
      folder: the folder of a Best.
      template: arrays, or shapes, with the shardings for the parameters.

    Raises:
      StageError: `folder` holds no checkpoint, the checkpoint is damaged, the model has other
        shapes, or a newer version of amuse_jax wrote the checkpoint.
    """
    try:
        params, record = _read_newest(folder, 'record', template)
        _check_digest(record.pop('digest', None), {'params': params}, record)
    except ValueError as error:
        raise _unreadable_error(folder, error) from error
    return params, record


def read_params(folder: Path, template: Mapping[str, Any]) -> Arrays:
    """Read the parameters of the newest checkpoint; arguments and errors are those of read_best."""
    return _read_newest(folder, 'progress', template)[0]


def save_frozen_once(folder: Path, arrays: Arrays) -> Arrays:
    """Save the frozen arrays if `folder` does not exist; otherwise return the saved ones.

    Raises:
      StageError: the saved arrays are damaged, have other shapes, or are from a newer version.
    """
    if not arrays:
        return arrays
    with ocp.StandardCheckpointer() as checkpointer:
        if not hosts.broadcast_from_first(folder.exists()):
            form = {'format': formats.CHECKPOINT_FORMAT}
            checkpointer.save(folder.absolute(), arrays, custom_metadata=form)
            return arrays
    return read_frozen(folder, arrays)


def read_frozen(folder: Path, template: Mapping[str, Any]) -> Arrays:
    """Read the arrays that save_frozen_once saved in `folder`.

    Args:
      folder: the folder.
      template: arrays, or shapes, with the shardings for the result.

    Raises:
      StageError: the arrays are missing or damaged, have other shapes, or are from a newer version.
    """
    if not template:
        return template
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            known = checkpointer.metadata(folder.absolute()).custom_metadata or {}
            formats.refuse_newer(known.get('format', 1), formats.CHECKPOINT_FORMAT, folder)
            return checkpointer.restore(folder.absolute(), _shapes(template))
        except DAMAGE as error:
            raise _unreadable_error(folder, error) from error


def _read_newest(folder: Path, record: str, template: Mapping[str, Any]) -> tuple[Arrays, dict]:
    if not folder.exists():
        raise StageError(f'{folder} does not exist; run the stage {folder.parent.name} first')
    manager = _manager(folder, keep=None)
    step = manager.latest_step()
    if step is None:
        raise StageError(
            f'{folder} holds no checkpoint; run the stage {folder.parent.name} to its end'
        )
    try:
        values = _read_json(manager, step, record)
        params = ocp.args.StandardRestore(_shapes(template))
        restored = manager.restore(step, args=ocp.args.Composite(params=params))
    except DAMAGE as error:
        raise _unreadable_error(folder / str(step), error) from error
    finally:
        manager.close()
    return restored.params, values


def _shapes(tree):
    """Return the shapes, dtypes and shardings of the arrays as a template for Orbax."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


def _unreadable_error(folder: Path, error: Exception) -> StageError:
    reason = str(error).partition('\n')[0][:200]
    return StageError(
        f'{folder} cannot be read into the configured model ({reason}); use the settings that it '
        'was trained with, or train again by --redo and the name of its stage'
    )


class _Manager(ocp.CheckpointManager):
    """A CheckpointManager that never asks JAX whether a notice of preemption has arrived.

    After a notice, JAX makes all processes agree on a number of calls of
    `multihost_utils.reached_preemption_sync_point` at which to stop. preemption.notice_received
    makes these calls. If Orbax called the function too, with step numbers of its own, the processes
    might never reach the number that they agreed on.
    """

    def reached_preemption(self, step: int) -> bool:
        """Return False, because the training loop saves after a notice."""
        return False


def _manager(folder: Path, keep: int | None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        cleanup_tmp_directories=True,
        # The first host lists the checkpoints: other hosts may see a new folder later.
        single_host_load_and_broadcast=True,
        # Barriers between hosts have names. Without a name for each folder, hosts that save two
        # folders at the same time could wait for each other at different barriers.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            barrier_sync_key_prefix=folder.name
        ),
    )
    return _Manager(folder.absolute(), options=options)


def _read_record(manager: ocp.CheckpointManager) -> dict | None:
    step = manager.latest_step()
    if step is None:
        return None
    try:
        return _read_json(manager, step, 'record')
    except DAMAGE as error:
        raise _unreadable_error(Path(manager.directory) / str(step), error) from error


def _set_aside(folder: Path, error: Exception) -> str:
    """Rename a checkpoint that cannot be read; return a message about it."""
    aside = folder.with_name(f'damaged-{folder.name}')
    try:
        rename(folder, aside)
    except FileNotFoundError:
        pass  # another process has done it
    except OSError:  # a damaged one of the same step exists already
        shutil.rmtree(aside)
        rename(folder, aside)
    reason, kind = str(error).partition('\n')[0][:200], type(error).__name__
    return f'checkpoint {folder} cannot be read ({kind}: {reason}); it was renamed to {aside}'


def _json(values: Mapping[str, Any]) -> ocp.args.JsonSave:
    return ocp.args.JsonSave({**values, 'format': formats.CHECKPOINT_FORMAT})


def _read_json(manager: ocp.CheckpointManager, step: int, name: str) -> dict:
    """Return the values that `_json` saved.

    Read them before anything else, because a newer version may save everything else differently.

    Raises:
      StageError: a newer version of amuse_jax wrote them.
    """
    restored = manager.restore(step, args=ocp.args.Composite(**{name: ocp.args.JsonRestore()}))
    values = dict(restored[name])
    where = Path(manager.directory) / str(step)
    formats.refuse_newer(
        values.pop('format', 1), formats.CHECKPOINT_FORMAT, where
    )  # format 1 did not write its number
    return values


def _trees(state: TrainState) -> dict[str, Any]:
    rest = state._asdict()
    return {'params': rest.pop('params'), 'rest': rest}


def _digest(trees: Mapping[str, Any], progress: Mapping[str, Any]) -> int:
    """Return a checksum of the arrays and the progress that does not depend on the sharding."""
    digest = zlib.crc32(json.dumps(progress, sort_keys=True).encode())
    for name in sorted(trees):
        sums = [_checksum(leaf) for leaf in jax.tree.leaves(trees[name])]
        digest = zlib.crc32(np.array(jax.device_get(sums), np.uint32), digest)
    return digest


def _check_digest(
    digest: int | None, trees: Mapping[str, Any], progress: Mapping[str, Any]
) -> None:
    """Raise ValueError if the digest differs; None, from an older version, is always accepted."""
    if digest is not None and _digest(trees, progress) != digest:
        raise ValueError('its content does not have the checksum it was saved with')


def _checksum(array: jax.Array) -> jax.Array | np.uint32:
    """Return a checksum, () uint32: the sum of a hash of every element's bits and position.

    The sum of integers does not depend on their order, so every device can add up its own part
    first. A change of one element always changes its hash, and therefore the sum.
    """
    if array.is_fully_addressable and all(each.platform == 'cpu' for each in array.devices()):
        return _checksum_on_host(np.asarray(array))
    return _checksum_on_devices(array)


def _checksum_on_host(array: np.ndarray) -> np.uint32:
    """Compute the checksum with NumPy: compiling it for each shape of a model takes seconds."""
    bits = array.reshape(-1).view(f'uint{8 * array.dtype.itemsize}')
    total = 0
    for start in range(0, bits.size, _CHUNK):
        part = bits[start : start + _CHUNK].astype(np.uint32)
        position = np.arange(start + 1, start + 1 + part.size).astype(np.uint32)
        total += int(_mix_bits(part ^ _mix_bits(position)).sum(dtype=np.uint32))
    return np.uint32(total % 2**32)


_CHUNK = 2**16  # elements that stay in a core's cache


@jax.jit
def _checksum_on_devices(array: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(array, _BITS[array.dtype.itemsize]).astype(jnp.uint32)
    position, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        position += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * np.uint32(stride)
        stride = stride * array.shape[axis] % 2**32
    return _mix_bits(bits ^ _mix_bits(position + np.uint32(1))).sum(dtype=jnp.uint32)


_BITS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def _mix_bits(x):
    """Permute the 32-bit numbers with the final mix of MurmurHash3 (Appleby, 2011)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
