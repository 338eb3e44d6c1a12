"""Memory of the devices: how much is free, how many parts a batch needs, what to do without room.

The compiler plans a step's memory, so the number of parts can be chosen before the first step.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import jax
from absl import logging
from jax.sharding import Mesh

from amuse_jax.errors import StageError, first_line
from amuse_jax.system import hosts, memory

USABLE = 0.9  # share of the free memory that is used; the rest is for fragmentation


@contextlib.contextmanager
def full_as_error(name: str, advice: str) -> Iterator[None]:
    """Turn the errors for memory that is full into a StageError; other errors stay as they are.

    Args:
      name: what was running, such as 'train'.
      advice: how to do with less memory; the error's last part.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not is_full(error):
            raise
        reason = first_line(error)[:200]
        raise StageError(
            f'{name} does not fit into the memory of the device ({reason}); {advice}'
        ) from error


def is_full(error: Exception) -> bool:
    """Return whether an error of JAX or NumPy says that memory is full."""
    return isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error)


@dataclasses.dataclass(frozen=True)
class Room:
    """Free memory in bytes; None: unknown.

    Attributes:
      device: on each device, beside what it holds already.
      host: in this host, for each of its processes.
    """

    device: int | None
    host: int | None


def measure_room(mesh: Mesh) -> Room:
    """Return the free memory of this process's devices and of its host."""
    devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    stats = [device.memory_stats() or {} for device in devices]
    free = None
    if all('bytes_limit' in each for each in stats):
        free = min(each['bytes_limit'] - each.get('bytes_in_use', 0) for each in stats)
    host = memory.available()
    return Room(free, None if host is None else host // hosts.count_on_this_host())


def room_for_step(mesh: Mesh) -> int | None:
    """Return the bytes that are free on each device beside its arrays; None if that is unknown.

    The devices of a CPU share the host's memory.
    """
    room = measure_room(mesh)
    if room.device is not None or room.host is None:
        return room.device
    return room.host // len(mesh.local_devices)


def step_bytes(compiled: jax.stages.Compiled) -> int:
    """Return the bytes that a compiled step takes on a device beside its arguments."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return results + analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes


def choose_parts(
    compile_step: Callable[[int], jax.stages.Compiled], candidates: Sequence[int], room: int | None
) -> tuple[int, jax.stages.Compiled]:
    """Compile the step with as few parts as fit into the memory, and log the choice.

    All processes must call this together. If no number of parts fits, the largest is taken.

    Args:
      compile_step: compiles the step for a number of parts.
      candidates: the numbers of parts to choose from, in ascending order.
      room: free bytes, from `room_for_step`; None: the first candidate is taken.

    Returns:
      The number of parts and the compiled step.
    """
    remaining, tried = list(candidates), []
    while True:
        parts = remaining.pop(0)
        compiled, planned = None, math.inf
        try:
            compiled = compile_step(parts)
            planned = step_bytes(compiled)
        except jax.errors.JaxRuntimeError as error:  # compilers for TPUs refuse it themselves
            if not is_full(error) or not remaining:
                raise
        tried.append(f'{in_gb(planned)} in {parts}')
        # If the step is too large for one process, all of them take more parts.
        excess = hosts.largest(_excess(planned, room))
        if excess == 1 or not remaining:
            break
        # The memory falls at most as fast as the number of parts grows.
        remaining = [each for each in remaining if each >= parts * excess] or remaining[-1:]
    logging.info(
        'train.parts=0 chooses %d; a step takes %s parts; free on each device: %s',
        parts, ', '.join(tried), 'unknown' if room is None else in_gb(room),
    )  # fmt: skip
    if excess > 1:
        logging.warning('no number of parts makes the step fit; it may run out of memory')
    return parts, compiled


def _excess(planned: float, room: int | None) -> int:
    """Return how many times the planned bytes are as large as the usable ones, rounded up."""
    if math.isinf(planned):
        return 2
    if room is None:
        return 1
    return min(max(1, math.ceil(planned / (USABLE * max(room, 1)))), 2**20)


def in_gb(size: float) -> str:
    """Return the text of a number of bytes, such as '15.6 GB'; an infinite one is 'too much'."""
    return 'too much' if math.isinf(size) else f'{size / 1e9:.3g} GB'
