"""Measuring several ways of doing the same work side by side."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Products in the shapes of Swin-V2-L's third stage for ten pictures, and a square one.
PEAK_SHAPES = ((1440, 768, 3072), (1440, 3072, 768), (2048, 2048, 2048))


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
    runs: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 2
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


def product_peak(dtype, rounds: int = 10) -> float:
    """FLOP/s of JAX's fastest matrix product on this machine, of PEAK_SHAPES."""
    multiply = jax.jit(jnp.matmul)
    best = 0.0
    for rows, depth, columns in PEAK_SHAPES:
        left, right = jnp.ones((rows, depth), dtype), jnp.ones((depth, columns), dtype)

        def run(left=left, right=right):
            multiply(left, right).block_until_ready()

        seconds = in_turns({'product': run}, rounds)['product'].median
        best = max(best, 2 * rows * depth * columns / seconds)
    return best
