"""The rows of the table, and measuring them one after the other."""

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import torch
from ml_collections import ConfigDict

from amuse_jax.benchmark import comparison, compiling, data, report, sweeps, timing, towers, whole
from amuse_jax.benchmark.comparison import Comparison
from amuse_jax.errors import StageError
from amuse_jax.system import memory

# make(config, with_compile) -> Comparison
COMPARED: Mapping[str, Callable[[ConfigDict, bool], Comparison]] = {
    **{part: functools.partial(towers.compare, part, 'forward') for part in towers.PARTS},
    **{
        f'{part}-gradient': functools.partial(towers.compare, part, 'gradient')
        for part in towers.PARTS
    },
    'whole': whole.forward,
    'step': whole.training_step,
    'questions': whole.five_questions,
    'epoch': whole.epoch,
}
# measure(config, folder, rounds, keep_memory) -> rows; there is no PyTorch side.
OWN = {'pipeline': data.input_pipeline, 'prepare': data.prepare_videos}
COMPILED = 'compile'
ROWS = (*COMPARED, COMPILED, *OWN)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
      rows: of ROWS.
      sweeps: of sweeps.AXES.
      dtypes: float32, bfloat16.
      rounds: measured repetitions.
      with_compile: whether torch.compile is a side.
      freed_memory: kept or returned, what this process does with it.
      folder: for what is rendered and prepared.

    Raises:
      StageError: an unknown name.
    """

    rows: Sequence[str]
    sweeps: Sequence[str]
    dtypes: Sequence[str]
    rounds: int
    with_compile: bool
    freed_memory: str
    folder: Path

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
    """Measures the plan's rows and sweeps; every figure is printed and kept when it is there.

    Raises:
      StageError: the sides differ, or the config leaves out a part of the model.
    """
    if config.without:
        raise StageError(
            f'the benchmark compares the whole model; the config is without {config.without}'
        )
    done, versions = [], report.versions('jax', 'torch', 'transformers')

    def keep(row: dict, dtype: str, axis: str = '') -> None:
        row = row | {'dtype': dtype, 'allocator': plan.freed_memory, 'versions': versions}
        if axis:
            figures.add_to_sweep(axis, row)
        else:
            figures.add(row)
            done.append(row)
        print(report.line(row), flush=True)

    for dtype in plan.dtypes:
        sizes = with_dtype(config, dtype)
        names = [name for name in plan.rows if name in COMPARED]
        if names or plan.sweeps:
            with _precision(dtype):
                product = timing.fastest_product(dtype)
            figures.add_products(dtype, product.rates)
            print(report.products(dtype, product.rates), flush=True)
        for name in names:
            make = functools.partial(COMPARED[name], sizes, plan.with_compile)
            keep(_compared(make, dtype, plan, product), dtype)
        for axis in plan.sweeps:
            for value in sweeps.AXES[axis]:
                make = functools.partial(sweeps.at, sizes, axis, value)
                row = _compared(make, dtype, plan, product)
                keep(row | {'value': value, 'work': sweeps.LABELS[axis]}, dtype, axis)
        if COMPILED in plan.rows:
            keep(compiling.training_step(sizes, plan.freed_memory == 'kept'), dtype)
    for name in plan.rows:
        if name in OWN:
            for row in OWN[name](config, plan.folder, plan.rounds, plan.freed_memory == 'kept'):
                keep(row, '')
    if done:
        print('\n' + report.tables(done))


def with_dtype(config: ConfigDict, dtype: str) -> ConfigDict:
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.dtype = dtype
    return config


def _precision(dtype: str) -> contextlib.AbstractContextManager:
    """GPUs and TPUs take float32 for less otherwise."""
    return jax.default_matmul_precision('highest' if dtype == 'float32' else 'default')


def _compared(
    make: Callable[[], Comparison], dtype: str, plan: Plan, product: timing.Product
) -> dict:
    """The row of a comparison, of which nothing is left in memory afterwards."""
    with _precision(dtype):
        row = comparison.measure(make(), dtype, plan.rounds, product)
    gc.collect()
    jax.clear_caches()
    torch.compiler.reset()
    memory.release()
    return row
