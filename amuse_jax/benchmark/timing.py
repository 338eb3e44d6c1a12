"""Measuring several ways of doing the same work side by side."""

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

# Products in the shapes of Swin-V2-L's third stage for ten pictures, and a square one.
PEAK_SHAPES = ((1440, 768, 3072), (1440, 3072, 768), (2048, 2048, 2048))
LARGE_SHAPE = (8192, 8192, 8192)  # an accelerator's too: it does the others in less than a call
LARGE_CALLS = 20  # of an accelerator for one wait
PEAK_RESET = Path('/proc/self/clear_refs')
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
      rates: FLOPs per second of every library and shape, by name.
    """

    name: str
    flops: float
    run: Callable[[], None]
    rates: Mapping[str, float]


def fastest_product(dtype: str, rounds: int = 7) -> Product:
    """Finds it for operands of `dtype`, float32 or bfloat16, at JAX's precision of the moment."""
    is_large = jax.default_backend() != 'cpu'
    calls, shapes = (LARGE_CALLS, (*PEAK_SHAPES, LARGE_SHAPE)) if is_large else (1, PEAK_SHAPES)
    products, flops = {}, {}
    for library, make in (('JAX', _jax_product), ('PyTorch', _torch_product)):
        for rows, depth, columns in shapes:
            name = f'{library} {rows}x{depth}x{columns}'
            products[name] = make(rows, depth, columns, dtype)
            flops[name] = 2 * rows * depth * columns
    runs = {name: functools.partial(multiply, calls) for name, multiply in products.items()}
    seconds = {n: each.median / calls for n, each in in_turns(runs, rounds, warmup=2).items()}
    rates = {name: flops[name] / seconds[name] for name in runs}
    best = max(rates, key=rates.get)
    count = math.ceil(PRODUCT_SECONDS / seconds[best])
    return Product(best, flops[best] * count, functools.partial(products[best], count), rates)


# Each multiplies so many times, and waits once: a call takes an accelerator longer to begin than
# a small product.


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
    """How much more memory this process takes while `run` runs than before; None where Linux does
    not say. It runs either way."""
    memory.release()
    try:
        PEAK_RESET.write_text('5')  # the peak begins anew
        before = _status_bytes('VmRSS')
    except OSError:
        before = None
    run()
    return None if before is None else _status_bytes('VmHWM') - before


def _status_bytes(name: str) -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{name}:'))
