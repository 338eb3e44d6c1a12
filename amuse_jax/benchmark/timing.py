"""Measuring several ways of doing the same work side by side."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from amuse_jax import memory

# Products in the shapes of Swin-V2-L's third stage for ten pictures, and a square one.
PEAK_SHAPES = ((1440, 768, 3072), (1440, 3072, 768), (2048, 2048, 2048))
PRODUCT_SECONDS = 0.3  # of one run of a Product: long enough to be timed beside anything


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of the repetitions of one thing."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float((high - low) / 2 / self.median)


def in_turns(
    runs: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1
) -> dict[str, Times]:
    """Runs each once per round, one after the other, so that a machine whose speed changes is as
    fast for all of them.

    Args:
      runs: by name; each returns when its work is done.
      rounds: how often.
      warmup: rounds before, not measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(-warmup, rounds):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            if index >= 0:
                seconds[name].append(time.perf_counter() - begun)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


@dataclasses.dataclass(frozen=True)
class Product:
    """This machine's fastest matrix product, of both libraries and PEAK_SHAPES.

    Attributes:
      name: library and shape.
      flops: of a run, two for each multiplication and addition.
      run: multiplies for about PRODUCT_SECONDS.
    """

    name: str
    flops: float
    run: Callable[[], None]


def fastest_product(dtype: str, rounds: int = 7) -> Product:
    """Finds it for operands of `dtype`, float32 or bfloat16."""
    runs, flops = {}, {}
    for library, make in (('JAX', _jax_product), ('PyTorch', _torch_product)):
        for rows, depth, columns in PEAK_SHAPES:
            name = f'{library} {rows}x{depth}x{columns}'
            runs[name] = make(rows, depth, columns, dtype)
            flops[name] = 2 * rows * depth * columns
    times = in_turns(runs, rounds, warmup=2)
    best = max(runs, key=lambda name: flops[name] / times[name].median)
    count = math.ceil(PRODUCT_SECONDS / times[best].median)

    def run():
        for _ in range(count):
            runs[best]()

    return Product(best, flops[best] * count, run)


def _jax_product(rows: int, depth: int, columns: int, dtype: str) -> Callable[[], None]:
    multiply = jax.jit(jnp.matmul)
    left, right = jnp.ones((rows, depth), dtype), jnp.ones((depth, columns), dtype)
    return lambda: multiply(left, right).block_until_ready()


def _torch_product(rows: int, depth: int, columns: int, dtype: str) -> Callable[[], None]:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    options = {'dtype': getattr(torch, dtype), 'device': device}
    left, right = torch.ones((rows, depth), **options), torch.ones((depth, columns), **options)
    out = torch.empty((rows, columns), **options)

    def run():
        torch.matmul(left, right, out=out)
        if device == 'cuda':
            torch.cuda.synchronize()

    return run


def peak_bytes(run: Callable[[], Any]) -> int | None:
    """How much more memory this process takes while `run` runs than before; None where Linux does
    not say."""
    memory.release()
    try:
        Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
        before = _status_bytes('VmRSS')
        run()
        return _status_bytes('VmHWM') - before
    except OSError:
        return None


def _status_bytes(name: str) -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{name}:'))
