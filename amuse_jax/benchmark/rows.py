"""The list of all rows, and the loop that measures them."""

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import torch
from ml_collections import ConfigDict

from amuse_jax.benchmark import (
    ask,
    comparison,
    compiling,
    data,
    epoch,
    peers,
    report,
    sweeps,
    timing,
    towers,
    whole,
)
from amuse_jax.benchmark.comparison import Comparison
from amuse_jax.errors import StageError
from amuse_jax.models import platform
from amuse_jax.system import memory

# Of a config with a peer, in place of all others; as COMPARISONS.
PEER_ROWS = {'peer': peers.forward, 'peer-step': peers.training_step}
# Functions build(config, with_compile, videos) -> Comparison.
COMPARISONS: Mapping[str, Callable[[ConfigDict, bool, int], Comparison]] = {
    **{part: functools.partial(towers.compare, part, 'forward') for part in towers.PARTS},
    **{
        f'{part}-gradient': functools.partial(towers.compare, part, 'gradient')
        for part in towers.PARTS
    },
    'whole': whole.forward,
    'step': whole.training_step,
    **{
        f'{part}-frozen': functools.partial(towers.compare, part, 'frozen')
        for part in towers.FROZEN_PARTS
    },
    'questions': whole.five_questions,
    'epoch': epoch.compare,
    'ask': ask.compare,
    **PEER_ROWS,
}
# Functions measure(config, folder, rounds, keep_memory) -> rows. There is no PyTorch side.
JAX_ONLY = {'pipeline': data.input_pipeline, 'prepare': data.prepare_videos}
COMPILE = 'compile'
ROWS = (*COMPARISONS, COMPILE, *JAX_ONLY)


def default_rows(config: ConfigDict) -> tuple[str, ...]:
    """Return the rows that are measured if none is named: those of Amuse, or of the peer."""
    return tuple(PEER_ROWS) if config.peer.name else tuple(r for r in ROWS if r not in PEER_ROWS)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
      rows: names from ROWS.
      sweeps: names from sweeps.AXES.
      dtypes: 'float32' or 'bfloat16'.
      rounds: number of measured repetitions.
      with_compile: whether torch.compile is a side.
      freed_memory: 'kept' or 'returned': what this process does with freed memory.
      folder: the folder for rendered videos and prepared records.
      videos: number of videos in a batch, for all rows that compare both sides.

    Raises:
      StageError: a name is unknown.
    """

    rows: Sequence[str]
    sweeps: Sequence[str]
    dtypes: Sequence[str]
    rounds: int
    with_compile: bool
    freed_memory: str
    folder: Path
    videos: int = 1

    def __post_init__(self):
        allowed = {
            'rows': ROWS,
            'sweeps': tuple(sweeps.AXES),
            'dtypes': tuple(comparison.TOLERANCES),
        }
        for name, known in allowed.items():
            unknown = [value for value in getattr(self, name) if value not in known]
            if unknown:
                raise StageError(
                    f'{name}: {unknown[0]} is unknown; expected some of {", ".join(known)}'
                )


def measure(config: ConfigDict, plan: Plan, figures: report.Figures) -> None:
    """Measure the plan's rows and sweeps; print and save every row at once.

    Args:
      config: the sizes.
      plan: what to measure.
      figures: where the rows are saved.

    Raises:
      StageError: results of the sides differ, or the config leaves out a part of the model.
    """
    if config.without:
        raise StageError(
            f'the benchmark compares the whole model, but config.without is {config.without!r}'
        )
    done, versions = [], report.package_versions('jax', 'torch', 'transformers')

    def save(row: dict, dtype: str, axis: str = '') -> None:
        row = row | {'dtype': dtype, 'allocator': plan.freed_memory, 'versions': versions}
        if axis:
            figures.add_to_sweep(axis, row)
        else:
            figures.add(row)
            done.append(row)
        print(report.format_row(row), flush=True)

    for dtype in plan.dtypes:
        sizes = with_dtype(config, dtype)
        names = [name for name in plan.rows if name in COMPARISONS]
        if names or plan.sweeps:
            with precision(dtype):
                product = timing.fastest_product(dtype)
            figures.add_products(dtype, product.rates)
            print(report.format_products(dtype, product.rates), flush=True)
        for name in names:
            build = functools.partial(COMPARISONS[name], sizes, plan.with_compile, plan.videos)
            save(_measure_row(build, dtype, plan, product), dtype)
        for axis in plan.sweeps:
            for value in sweeps.AXES[axis]:
                build = functools.partial(sweeps.comparison_at, sizes, axis, value)
                row = _measure_row(build, dtype, plan, product)
                save(row | {'value': value, 'work': sweeps.LABELS[axis]}, dtype, axis)
        if COMPILE in plan.rows:
            save(compiling.training_step(sizes, plan.freed_memory == 'kept'), dtype)
    for name in plan.rows:
        if name in JAX_ONLY:
            for row in JAX_ONLY[name](
                config, plan.folder, plan.rounds, plan.freed_memory == 'kept'
            ):
                save(row, '')
    if done:
        print('\n' + report.format_tables(done))


def with_dtype(config: ConfigDict, dtype: str) -> ConfigDict:
    """Return the config with another compute dtype."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.dtype = dtype
    return config


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Multiply float32 on both sides as training does for `model.dtype`.

    platform.matmul_precision states the rule. On GPUs PyTorch gets the same one: TF32 where JAX
    uses it, in products and in convolutions, and nowhere else.
    """
    chosen = platform.matmul_precision(dtype)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision('highest' if chosen == 'highest' else 'high')
    torch.backends.cudnn.allow_tf32 = chosen != 'highest'
    try:
        with jax.default_matmul_precision(chosen):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _measure_row(
    build: Callable[[], Comparison], dtype: str, plan: Plan, product: timing.Product
) -> dict:
    """Return the row of a comparison, and free everything that it held in memory."""
    with precision(dtype):
        row = comparison.measure(build(), dtype, plan.rounds, product)
    gc.collect()
    jax.clear_caches()
    torch.compiler.reset()
    memory.release()
    return row
