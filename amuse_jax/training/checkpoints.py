"""Orbax checkpoints: the training state with its data iterator, what is frozen, and the best
parameters.

    FOLDER/checkpoints/STEP/{params,rest,progress}   the newest few
    FOLDER/frozen/                                   arrays that never change, once
    FOLDER/best/NUMBER/{params,record}               the best by validation

A checkpoint appears by the renaming of its folder, so a kill never leaves half of one. The newest
few and the best also carry a checksum of their content. A newest one that cannot be read is set
aside as checkpoints/damaged-STEP, which nothing reads, and the one before it is taken. Nothing in a
checkpoint depends on the devices or hosts that wrote it.
"""

import json
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
from amuse_jax.training.state import Arrays, TrainState

# What Orbax and TensorStore raise over a damaged file, and Grain over a state it cannot take.
DAMAGE = (ValueError, KeyError, TypeError, OSError, AttributeError)


class Checkpoints:
    """The newest `keep` checkpoints in `folder`, written in the background."""

    def __init__(self, folder: Path, keep: int):
        self._manager = _manager(folder, keep)

    def save(self, state: TrainState, iterator: Any, progress: Mapping[str, Any]) -> None:
        """Saves state, data iterator and `progress` (JSON values) under the state's step."""
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
        self, template: TrainState, iterator_of: Callable[[dict], Any]
    ) -> tuple[TrainState, Any, dict] | None:
        """The newest intact checkpoint; damaged ones are named in the log and set aside.

        Of several processes, one that finds damage ends with hosts.AGAIN: the others may have read
        their own parts of it well, and wait for this one.

        Args:
          template: a state of the same shapes and shardings.
          iterator_of: makes the data iterator that belongs to a checkpoint's progress.

        Returns:
          State, iterator and progress; None when there is no intact checkpoint.

        Raises:
          StageError: a newer version of amuse_jax wrote it.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._restore(step, template, iterator_of)
            except DAMAGE as error:
                told = _set_aside(Path(self._manager.directory) / str(step), error)
                if hosts.count() > 1:
                    hosts.leave(f'amuse_jax: {told}; all processes must start again', hosts.AGAIN)
                logging.warning('%s; going on from the one before it', told)
                self._manager.reload()
        return None

    def _restore(
        self, step: int, template: TrainState, iterator_of: Callable[[dict], Any]
    ) -> tuple[TrainState, Any, dict]:
        progress = _read_json(self._manager, step, 'progress')
        digest = progress.pop('digest')
        targets = {
            name: ocp.args.StandardRestore(_shapes(tree)) for name, tree in _trees(template).items()
        }
        read = self._manager.restore(step, args=ocp.args.Composite(**targets))
        trees = {name: read[name] for name in targets}
        _check_digest(digest, trees, progress)
        iterator = iterator_of(progress)
        iterator.set_state(progress.pop('iterator'))
        state = TrainState(params=trees['params'], **trees['rest'])
        if int(state.step) != step:
            raise ValueError(f'it holds step {int(state.step)}')
        return state, iterator, progress

    def close(self) -> None:
        """Returns once everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


class Best:
    """The parameters with the best validation score so far, in `folder`."""

    def __init__(self, folder: Path):
        self._manager = _manager(folder, keep=1)
        self.record = _read_record(self._manager)

    def offer(self, score: float, params: Arrays, record: Mapping[str, Any]) -> None:
        """Keeps `params` when `score` beats the best; `record` (JSON values) is kept beside them.

        The folder itself says what the best score is. A resumed run may therefore find one from its
        own future: the same steps lead to it again, and it stays.
        """
        if self.record is not None and score <= self.record['score']:
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
        self._manager.wait_until_finished()
        self._manager.close()


def read_best(folder: Path, template: Mapping[str, Any]) -> tuple[Arrays, dict]:
    """The best parameters and their record (`score`, `step`, ...).

    Args:
      folder: of a Best.
      template: arrays, or shapes, with the shardings that the parameters are to have.

    Raises:
      StageError: there is none in `folder`, it is damaged, the model has other shapes, or a newer
        version of amuse_jax wrote it.
    """
    try:
        params, record = _read_newest(folder, 'record', template)
        _check_digest(record.pop('digest', None), {'params': params}, record)
    except ValueError as error:
        raise _unreadable(folder, error) from error
    return params, record


def read_params(folder: Path, template: Mapping[str, Any]) -> Arrays:
    """The parameters of the newest checkpoint in `folder`; arguments and errors as read_best."""
    return _read_newest(folder, 'progress', template)[0]


def keep_frozen(folder: Path, arrays: Arrays) -> Arrays:
    """Saves the frozen arrays where `folder` has none, else returns the saved ones.

    Raises:
      StageError: the saved ones are damaged, of other shapes, or a newer version's.
    """
    if not arrays:
        return arrays
    with ocp.StandardCheckpointer() as checkpointer:
        if not hosts.first_says(folder.exists()):
            form = {'format': formats.CHECKPOINT_FORMAT}
            checkpointer.save(folder.absolute(), arrays, custom_metadata=form)
            return arrays
    return read_frozen(folder, arrays)


def read_frozen(folder: Path, template: Mapping[str, Any]) -> Arrays:
    """The arrays that keep_frozen left in `folder`, shaped and sharded like `template`.

    Raises:
      StageError: they are missing, damaged, of other shapes, or a newer version's.
    """
    if not template:
        return template
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            known = checkpointer.metadata(folder.absolute()).custom_metadata or {}
            formats.refuse_newer(known.get('format', 1), formats.CHECKPOINT_FORMAT, folder)
            return checkpointer.restore(folder.absolute(), _shapes(template))
        except DAMAGE as error:
            raise _unreadable(folder, error) from error


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
        kept = _read_json(manager, step, record)
        params = ocp.args.StandardRestore(_shapes(template))
        read = manager.restore(step, args=ocp.args.Composite(params=params))
    except DAMAGE as error:
        raise _unreadable(folder / str(step), error) from error
    finally:
        manager.close()
    return read.params, kept


def _shapes(tree):
    """Shapes and shardings to restore into."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


def _unreadable(folder: Path, error: Exception) -> StageError:
    reason = str(error).partition('\n')[0][:200]
    return StageError(
        f'{folder} cannot be read into the configured model ({reason}); use the settings it was '
        'made with, or delete its stage folder to make it again'
    )


class _Manager(ocp.CheckpointManager):
    """Never asks JAX whether there was a notice of preemption.

    JAX has the processes stop at a number that their calls of
    `multihost_utils.reached_preemption_sync_point` count to. preemption.is_noticed counts; Orbax
    would go on from numbers of its own, and the processes might never come to the one agreed on.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


def _manager(folder: Path, keep: int | None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        cleanup_tmp_directories=True,
        # Which checkpoints there are the first host says; others may see it later.
        single_host_load_and_broadcast=True,
        # Several hosts meet by name; without names of their own, two folders saved at once would
        # have them meet crosswise.
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
        raise _unreadable(Path(manager.directory) / str(step), error) from error


def _set_aside(folder: Path, error: Exception) -> str:
    """Renames a checkpoint that cannot be read; says so."""
    aside = folder.with_name(f'damaged-{folder.name}')
    try:
        folder.rename(aside)
    except FileNotFoundError:
        pass  # another process has done it
    except OSError:  # one of the same step lies there
        shutil.rmtree(aside)
        folder.rename(aside)
    reason, kind = str(error).partition('\n')[0][:200], type(error).__name__
    return f'checkpoint {folder} cannot be read ({kind}: {reason}); it is kept as {aside}'


def _json(values: Mapping[str, Any]) -> ocp.args.JsonSave:
    return ocp.args.JsonSave({**values, 'format': formats.CHECKPOINT_FORMAT})


def _read_json(manager: ocp.CheckpointManager, step: int, name: str) -> dict:
    """What `_json` saved; read before anything else, since a newer version may save all else anew.

    Raises:
      StageError: a newer version of amuse_jax wrote it.
    """
    read = manager.restore(step, args=ocp.args.Composite(**{name: ocp.args.JsonRestore()}))
    values = dict(read[name])
    where = Path(manager.directory) / str(step)
    formats.refuse_newer(
        values.pop('format', 1), formats.CHECKPOINT_FORMAT, where
    )  # 1 was not written down
    return values


def _trees(state: TrainState) -> dict[str, Any]:
    rest = state._asdict()
    return {'params': rest.pop('params'), 'rest': rest}


def _digest(trees: Mapping[str, Any], progress: Mapping[str, Any]) -> int:
    """A checksum of the arrays and the progress, the same however the arrays are shared out."""
    digest = zlib.crc32(json.dumps(progress, sort_keys=True).encode())
    for name in sorted(trees):
        sums = [_checksum(leaf) for leaf in jax.tree.leaves(trees[name])]
        digest = zlib.crc32(np.array(jax.device_get(sums), np.uint32), digest)
    return digest


def _check_digest(
    digest: int | None, trees: Mapping[str, Any], progress: Mapping[str, Any]
) -> None:
    """Raises ValueError when the digest is of another content; None, of an older version, fits."""
    if digest is not None and _digest(trees, progress) != digest:
        raise ValueError('its content does not have the checksum it was saved with')


@jax.jit
def _checksum(array: jax.Array) -> jax.Array:
    """() uint32: every element's bits scattered in a way of its position's own, added up.

    Sums of integers come out the same in any order, so every device can begin with its part. A
    changed element changes its own term for certain, and so the sum.
    """
    bits = jax.lax.bitcast_convert_type(array, _BITS[array.dtype.itemsize]).astype(jnp.uint32)
    position, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        position += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * np.uint32(stride)
        stride = stride * array.shape[axis] % 2**32
    return _scattered(bits ^ _scattered(position + np.uint32(1))).sum(dtype=jnp.uint32)


_BITS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def _scattered(x: jax.Array) -> jax.Array:
    """A permutation of the 32-bit numbers: the last steps of MurmurHash3 (Appleby, 2011)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
