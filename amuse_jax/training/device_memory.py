"""Memory of the devices during training: how many parts a batch needs, and what to do without room.

The compiler plans a step's memory, so the number of parts can be chosen before the first step.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
from absl import logging
from jax.sharding import Mesh

from amuse_jax.errors import StageError, first_line
from amuse_jax.system import hosts
from amuse_jax.training import token_cache

Compiled = TypeVar('Compiled')


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


def room_for_step(mesh: Mesh) -> int | None:
    """Return the bytes that are free on each device beside its arrays; None if that is unknown.

    The devices of a CPU share the host's memory.
    """
    room = token_cache.measure_room(mesh)
    if room.device is not None or room.host is None:
        return room.device
    return room.host // len(mesh.local_devices)


def choose_parts(
    compile_step: Callable[[int], Compiled],
    step_bytes: Callable[[Compiled], int],
    candidates: Sequence[int],
    room: int | None,
) -> tuple[int, Compiled]:
    """Compile the step with as few parts as fit into the memory, and log the choice.

    All processes must call this together. If no number of parts fits, the largest is taken.

    Args:
      compile_step: compiles the step for a number of parts.
      step_bytes: the bytes that a compiled step takes beside its arguments.
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
        tried.append(f'{_gb(planned)} in {parts}')
        # If the step is too large for one process, all of them take more parts.
        excess = hosts.largest(_excess(planned, room))
        if excess == 1 or not remaining:
            break
        # The memory falls at most as fast as the number of parts grows.
        remaining = [each for each in remaining if each >= parts * excess] or remaining[-1:]
    logging.info(
        'train.parts=0 chooses %d; a step takes %s parts; free on each device: %s',
        parts, ', '.join(tried), 'unknown' if room is None else _gb(room),
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
    return min(max(1, math.ceil(planned / (token_cache.USABLE * max(room, 1)))), 2**20)


def _gb(size: float) -> str:
    return 'too much' if math.isinf(size) else f'{size / 1e9:.3g} GB'
