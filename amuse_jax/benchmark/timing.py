"""Timing of several implementations in turn, the fastest matrix product, and peak memory."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from amuse_jax.system import memory

# Products (rows, depth, columns) of Swin-V2-L's third stage for ten frames, and a square one.
PEAK_SHAPES = ((1440, 768, 3072), (1440, 3072, 768), (2048, 2048, 2048))
LARGE_SHAPE = (8192, 8192, 8192)  # for accelerators, where the others take less time than a call
LARGE_CALLS = 20  # calls between two waits on an accelerator
PEAK_RESET = Path('/proc/self/clear_refs')
PRODUCT_SECONDS = 0.3  # duration of Product.run, long enough for an exact measurement


@dataclasses.dataclass(frozen=True)
class Times:
    """The seconds that each repetition took."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """Half the interquartile range, relative to the median."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float((high - low) / 2 / self.median)


def time_interleaved(
    runs: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 1
) -> dict[str, Times]:
    """Time several functions in turn, each once per round.

    A machine whose speed changes over time is then equally fast for all of them.

    Args:
      runs: the functions by name; each returns when its work is complete.
      rounds: number of measured rounds.
      warmup: number of rounds before that, which are not measured.

    Returns:
      The times by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(-warmup, rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if index >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


@dataclasses.dataclass(frozen=True)
class Product:
    """This machine's fastest matrix product, among both libraries and all measured shapes.

    Attributes:
      name: the library and the shape.
      flops: FLOPs of a run; a multiplication with its addition counts as two.
      run: repeats the product for about PRODUCT_SECONDS.
      rates: FLOPs per second by name, for every library and shape.
    """

    name: str
    flops: float
    run: Callable[[], None]
    rates: Mapping[str, float]


def fastest_product(dtype: str, rounds: int = 7) -> Product:
    """Find the fastest product, at JAX's current matmul precision.

    Args:
      dtype: the operands' dtype, 'float32' or 'bfloat16'.
      rounds: number of measured rounds.
    """
    is_large = jax.default_backend() != 'cpu'
    calls, shapes = (LARGE_CALLS, (*PEAK_SHAPES, LARGE_SHAPE)) if is_large else (1, PEAK_SHAPES)
    products, flops = {}, {}
    for library, make in (('JAX', _jax_product), ('PyTorch', _torch_product)):
        for rows, depth, columns in shapes:
            name = f'{library} {rows}x{depth}x{columns}'
            products[name] = make(rows, depth, columns, dtype)
            flops[name] = 2 * rows * depth * columns
    runs = {name: functools.partial(multiply, calls) for name, multiply in products.items()}
    seconds = {
        n: each.median / calls for n, each in time_interleaved(runs, rounds, warmup=2).items()
    }
    rates = {name: flops[name] / seconds[name] for name in runs}
    best = max(rates, key=rates.get)
    count = math.ceil(PRODUCT_SECONDS / seconds[best])
    return Product(best, flops[best] * count, functools.partial(products[best], count), rates)


# The functions below multiply `count` times and then wait once, because starting a call takes an
# accelerator longer than a small product.


def _jax_product(rows: int, depth: int, columns: int, dtype: str) -> Callable[[int], None]:
    multiply = jax.jit(jnp.matmul)
    left, right = jnp.ones((rows, depth), dtype), jnp.ones((depth, columns), dtype)

    def run(count: int):
        for _ in range(count):
            product = multiply(left, right)
        product.block_until_ready()

    return run


def _torch_product(rows: int, depth: int, columns: int, dtype: str) -> Callable[[int], None]:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    options = {'dtype': getattr(torch, dtype), 'device': device}
    left, right = torch.ones((rows, depth), **options), torch.ones((depth, columns), **options)
    out = torch.empty((rows, columns), **options)

    def run(count: int):
        for _ in range(count):
            torch.matmul(left, right, out=out)
        if device == 'cuda':
            torch.cuda.synchronize()

    return run


def peak_bytes(run: Callable[[], Any]) -> int | None:
    """Call `run` and return how much memory it added to this process at its peak, in bytes.

    The result is None where the system does not tell, but `run` is called in any case.
    """
    memory.release()
    try:
        PEAK_RESET.write_text('5', 'utf-8')  # resets the peak, VmHWM
        before = _status_bytes('VmRSS')
    except OSError:
        before = None
    run()
    return None if before is None else _status_bytes('VmHWM') - before


def _status_bytes(name: str) -> int:
    lines = Path('/proc/self/status').read_text('utf-8').splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{name}:'))
