"""The stored tokens of the frozen towers during training: on disk, in host memory or on devices.

On disk, the tokens are memory-mapped. In host memory, each process holds the tokens of all videos
that it may have to read. On the devices, each device holds an equal share of the videos, and a
step's batch is gathered there. The batches are the same in all three places.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, PartitionSpec

from amuse_jax.data import pipeline
from amuse_jax.system import hosts
from amuse_jax.training import device_memory, sharding
from amuse_jax.training.device_memory import USABLE, Room, in_gb
from amuse_jax.training.state import Arrays

PLACES = ('device', 'host', 'disk')
CHUNK_BYTES = 2**28  # moved to a device at once
# Tokens that the devices exchange for one batch: every device sends all of them. With more, a host
# reads its own few videos faster than the devices exchange them.
EXCHANGE_BYTES = 2**30
ROWS, SEGMENTS = 'token_rows', 'segments'  # arrays of a batch whose tokens are on the devices


class TokenCache:
    """The tokens of one phase of training.

    Until `place` is called, batches read them from the disk.

    Attributes:
      arrays: (records, T, ...) tokens by name, memory-mapped.
      place_name: where the tokens are: one of PLACES.
      setting: where `place` moves them: one of PLACES, or 'auto'.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        records: Sequence[int],
        mesh: Mesh,
        setting: str = 'disk',
    ):
        """Leave the tokens on the disk until `place` is called.

        Args:
          arrays: as above.
          records: the records that batches may hold.
          mesh: the device mesh.
          setting: where `place` moves the tokens; see `train.cache`.
        """
        self.arrays, self.place_name, self.setting = dict(arrays), 'disk', setting
        self._records, self._mesh = np.unique(np.asarray(records, np.int64)), mesh
        self._shards = sharding.num_batch_shards(mesh)
        self._rows = np.full(max(len(array) for array in arrays.values()), -1, np.int32)
        self._rows[self._records] = np.arange(len(self._records))
        self._held: dict[str, Any] = {}
        self._gather: Callable[..., Arrays] | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of all tokens that batches may hold."""
        return len(self._records) * self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return sum(array[:1].nbytes for array in self.arrays.values())

    @property
    def _rows_per_device(self) -> int:
        return -(-len(self._records) // self._shards)

    def shapes(self, videos: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Return the shapes and shardings of the tokens in a batch of `videos`."""
        where = sharding.batch_sharding(self._mesh)
        return {
            name: jax.ShapeDtypeStruct((videos, *array.shape[1:]), array.dtype, sharding=where)
            for name, array in self.arrays.items()
        }

    def choose(self, videos: int, step_bytes: int, room: Room) -> tuple[str, str]:
        """Return where the tokens should be, and the reason.

        Args:
          videos: videos in a batch.
          step_bytes: bytes that a step takes on a device beside its arguments.
          room: the free memory.
        """
        if self.setting != 'auto':
            return self.setting, 'as train.cache says'
        share = self._rows_per_device * self._row_bytes
        batch = videos * self._row_bytes
        gathered = 3 * batch if self._shards > 1 else batch  # looked up, received and selected
        need = share + gathered + step_bytes
        if room.device is None:
            why = "the devices' memory is unknown"
        elif need > USABLE * room.device:
            why = f'with a step each device needs {in_gb(need)}, and {in_gb(room.device)} are free'
        elif self._shards > 1 and batch > EXCHANGE_BYTES:
            why = f'the devices would exchange {in_gb(batch)} in every step'
        else:
            return 'device', f'each device needs {in_gb(need)} of {in_gb(room.device)} with a step'
        if room.host is None:
            return 'disk', f"{why}; the host's memory is unknown"
        # On CPUs, a device's memory is that of the host.
        taken = step_bytes * self._mesh.size if room.device is None else 0
        place = 'host' if self.nbytes + taken <= USABLE * room.host else 'disk'
        return place, f'{why}; the host has {in_gb(room.host)} for each process'

    def place(self, videos: int, step_bytes: int) -> None:
        """Move the tokens to where the setting, or the free memory, says; log where that is.

        All processes must call this together. Arguments are those of `choose`.
        """
        self.release()
        name, why = self.choose(videos, step_bytes, device_memory.measure_room(self._mesh))
        # If one process has less memory than the others, all of them do without.
        name = PLACES[hosts.largest(PLACES.index(name))]
        logging.info('stored tokens: %s, %s (%s)', in_gb(self.nbytes), DESCRIPTIONS[name], why)
        if name == 'host':
            self._held = {n: array[self._records] for n, array in self.arrays.items()}
        elif name == 'device':
            self._held = {n: self._share_out(array) for n, array in self.arrays.items()}
            self._gather = _compile_gather(self._mesh)
        self.place_name = name

    def release(self) -> None:
        """Free the memory; batches then read the tokens from the disk."""
        self.place_name, self._held, self._gather = 'disk', {}, None

    def add(self, batch: pipeline.Batch) -> pipeline.Batch:
        """Add the tokens to a batch, or the rows of the shared-out tokens.

        Args:
          batch: a batch with `record` (V,) and `segments` (V, T), the order of each video's
            segments. The latter is removed.
        """
        batch = dict(batch)
        order, place = batch.pop(SEGMENTS), self.place_name
        if place == 'device':
            return batch | {ROWS: self._rows[batch['record']], SEGMENTS: order}
        arrays = self._held if place == 'host' else self.arrays
        records = self._rows[batch['record']] if place == 'host' else batch['record']
        for name, array in arrays.items():
            batch[name] = tokens = np.empty((len(records), *array.shape[1:]), array.dtype)
            for video, row in enumerate(records):
                with pipeline.track_read(batch['record'][video]):
                    _copy_segments(tokens[video], array[row], order[video])
        return batch

    def without(self, batch: pipeline.Batch) -> pipeline.Batch:
        """Return a batch without its tokens and without their rows."""
        names = {*self.arrays, ROWS, SEGMENTS}
        return {name: array for name, array in batch.items() if name not in names}

    def gather(self, batch: Arrays) -> Arrays:
        """Return a sharded batch with its tokens, if they are on the devices."""
        if ROWS not in batch:
            return batch
        batch = dict(batch)
        return batch | self._gather(self._held, batch.pop(ROWS), batch.pop(SEGMENTS))

    def _share_out(self, array: np.ndarray) -> jax.Array:
        """Return the tokens of the records, (rows, T, ...), shared out like a batch's videos."""
        size = self._rows_per_device
        shape = (size * self._shards, *array.shape[1:])
        where = sharding.batch_sharding(self._mesh)
        shards = []
        for device, index in where.addressable_devices_indices_map(shape).items():
            start = index[0].start or 0
            shards.append(self._fill(device, array, self._records[start : start + size], size))
        return jax.make_array_from_single_device_arrays(shape, where, shards)

    def _fill(
        self, device: jax.Device, array: np.ndarray, records: np.ndarray, size: int
    ) -> jax.Array:
        """Return the tokens of `records` on a device, padded to `size` rows.

        They are moved in chunks, so that the host never holds all of them.
        """
        with jax.default_device(device):
            share = jnp.zeros((size, *array.shape[1:]), array.dtype)
        rows = max(1, CHUNK_BYTES // array[:1].nbytes)
        for start in range(0, len(records), rows):
            chunk = jax.device_put(array[records[start : start + rows]], device)
            share = _write_rows(share, chunk, start)
            share.block_until_ready()
        return share


DESCRIPTIONS = {
    'device': 'shared out over the memory of the devices',
    'host': 'in the memory of the host',
    'disk': 'on the disk',
}


def _copy_segments(target: np.ndarray, source: np.ndarray, order: np.ndarray) -> None:
    """Write `source` with its segments in this order to `target`; both are (T, ...)."""
    if (order[1:] > order[:-1]).all():
        target[...] = source  # in one piece
    else:
        for segment, place in enumerate(order):
            target[segment] = source[place]


@jax.jit(donate_argnums=0)
def _write_rows(share: jax.Array, rows: jax.Array, start: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(share, rows, start, 0)


def _compile_gather(mesh: Mesh) -> Callable[..., Arrays]:
    """Compile `gather(shares, rows, order)`, which returns the tokens of a batch, sharded by video.

    Every device looks up all rows of the batch in its share, and sends each device what it found
    for its videos. The receiver takes every row from the device that holds it. No number passes
    through arithmetic, so all of them keep their bits.
    """
    axes, shards = sharding.LOGICAL['videos'], sharding.num_batch_shards(mesh)

    def gather(shares, rows, order):
        if shards == 1:
            return jax.tree.map(lambda share: share[rows[:, None], order], shares)
        wanted, orders = (jax.lax.all_gather(x, axes, tiled=True) for x in (rows, order))

        def exchange(share):
            local = wanted - jax.lax.axis_index(axes) * len(share)
            found = share[jnp.clip(local, 0, len(share) - 1)[:, None], orders]
            found = jax.lax.all_to_all(found, axes, split_axis=0, concat_axis=0, tiled=True)
            found = found.reshape(shards, -1, *found.shape[1:])
            return found[rows // len(share), jnp.arange(len(rows))]

        return jax.tree.map(exchange, shares)

    return jax.jit(
        jax.shard_map(
            gather,
            mesh=mesh,
            in_specs=(PartitionSpec(axes),) * 3,
            out_specs=PartitionSpec(axes),
            check_vma=False,
        )
    )
