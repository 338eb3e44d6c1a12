"""Comparison of several implementations of the same work: results, time and memory.

An implementation is called a side: JAX; PyTorch with Hugging Face's unchanged towers; PyTorch with
fused attention in them (PyTorch SDPA); and the latter with torch.compile.
"""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from amuse_jax.benchmark import timing
from amuse_jax.benchmark.reference import fused
from amuse_jax.data.pipeline import Batch
from amuse_jax.errors import StageError
from amuse_jax.models import flops
from amuse_jax.training.state import Arrays, TrainState

TOLERANCES = {'float32': 1e-3, 'bfloat16': 5e-2}  # relative to the largest value
Results = dict[str, np.ndarray]

# Kinds of rows. WORK: every side computes the same operations, and stores nothing between runs.
# RESULT: all sides have the same results, and each computes them in its best way: it stores what
# depends on frozen weights alone, and shares what several questions need.
WORK, RESULT = 'same work', 'same result'


@dataclasses.dataclass(frozen=True)
class Side:
    """One implementation of the work.

    Attributes:
      run: does the work and returns its results by name when they are complete. Results of several
        sides under the same name must be equal.
      held_bytes: size of weights, optimizer state and inputs.
      compile_seconds: XLA's compile time; None for PyTorch, which compiles in its first run.
      planned_bytes: memory that XLA plans to use beyond `held_bytes`. It stands in for the peak on
        accelerators.
    """

    run: Callable[[], Results]
    held_bytes: int
    compile_seconds: float | None = None
    planned_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes:
      work: the row's name.
      kind: WORK or RESULT.
      samples: number of videos, questions or pictures that `seconds` covers.
      flops: FLOPs of JAX's matrix products in `seconds`.
      sides: the sides by name; the others are compared with 'JAX'.
      expected: results that the first run of every side must have.
      seconds: a function from the measured seconds of all sides to the seconds of the work, for
        every side that does all of it. It is needed if the work consists of several runs, or if a
        side is a part of another one.
      extra: a function from the medians of all sides to further figures of the row.
    """

    work: str
    kind: str
    samples: int
    flops: float
    sides: dict[str, Side]
    expected: Results = dataclasses.field(default_factory=dict)
    seconds: Callable[[Mapping[str, float]], dict[str, float]] = dict
    extra: Callable[[Mapping[str, float]], dict[str, float]] = lambda medians: {}


def measure(comparison: Comparison, dtype: str, rounds: int, product: timing.Product) -> dict:
    """Measure a row and return its figures.

    Args:
      comparison: the row's sides.
      dtype: the compute dtype, which decides the tolerance.
      rounds: number of measured repetitions of each side.
      product: the matrix product with whose rate JAX's rate is compared; it is timed in turn with
        the sides.

    Returns:
      The figures, as JSON values.

    Raises:
      StageError: the results of the sides differ.
    """
    sides = comparison.sides
    first_seconds, peaks = _check_results(comparison, dtype)
    runs = {name: side.run for name, side in sides.items()}
    times = timing.time_interleaved({**runs, 'product': product.run}, rounds)
    medians = {name: value.median for name, value in times.items()}
    peak = product.flops / medians.pop('product')
    seconds = comparison.seconds(medians)
    rate = comparison.flops / seconds['JAX']
    by_round = [comparison.seconds({n: times[n].seconds[i] for n in runs}) for i in range(rounds)]
    spread = {n: timing.Times(tuple(each[n] for each in by_round)).spread for n in seconds}
    compile_seconds = {n: side.compile_seconds for n, side in sides.items() if side.compile_seconds}
    if 'torch.compile' in sides:  # it compiles in its first run
        first = first_seconds['torch.compile']
        compile_seconds['torch.compile'] = first - medians['torch.compile']
    return {
        'work': comparison.work,
        'kind': comparison.kind,
        'samples': comparison.samples,
        'seconds': seconds,
        'spread': spread,
        'samples_per_second': {name: comparison.samples / value for name, value in seconds.items()},
        'times_faster': {
            name: value / seconds['JAX'] for name, value in seconds.items() if name != 'JAX'
        },
        'flops': comparison.flops,
        'flops_per_second': rate,
        'peak_flops_per_second': peak,
        'share_of_peak': rate / peak,
        'peak_bytes': peaks,
        'planned_bytes': {n: side.planned_bytes for n, side in sides.items() if side.planned_bytes},
        'compile_seconds': compile_seconds,
        **comparison.extra(medians),
    }


def _check_results(
    comparison: Comparison, dtype: str
) -> tuple[dict[str, float], dict[str, int | None]]:
    """Run every side twice and compare the results.

    The second loss of a training step shows whether the first gradient was right.

    Returns:
      Seconds of the first run, and peak memory in bytes of the second run, by side.
    """
    seconds, results = {}, {}
    for name, side in comparison.sides.items():
        start = time.perf_counter()
        results[name] = side.run()
        seconds[name] = time.perf_counter() - start
    with_expected = results | {'the expected values': comparison.expected}
    check_agreement(comparison.work, with_expected, TOLERANCES[dtype])
    peaks = {}
    for name, side in comparison.sides.items():
        results[name], peaks[name] = _run_with_peak(side)
    check_agreement(comparison.work, results, TOLERANCES[dtype])
    return seconds, peaks


def _run_with_peak(side: Side) -> tuple[Results, int | None]:
    """Run a side once; return its results and its peak memory in bytes, None if it is unknown."""
    if jax.default_backend() != 'cpu' and side.planned_bytes:
        return side.run(), side.held_bytes + side.planned_bytes
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return side.run(), side.held_bytes + torch.cuda.max_memory_allocated() - before
    results = {}
    added = timing.peak_bytes(lambda: results.update(side.run()))
    return results, None if added is None else side.held_bytes + added


def check_agreement(work: str, results: Mapping[str, Results], tolerance: float) -> None:
    """Check that the results of several sides under the same name are equal.

    Args:
      work: the row's name, for the message.
      results: the results of every side, by side.
      tolerance: allowed difference, relative to the largest value.

    Raises:
      StageError: two results differ by more.
    """
    known: dict[str, tuple[str, np.ndarray]] = {}
    for side, by_name in results.items():
        for name, value in by_name.items():
            value = np.asarray(value, np.float32)
            other, other_value = known.setdefault(name, (side, value))
            largest = np.maximum(np.abs(value), np.abs(other_value)).max()
            error = float(np.abs(value - other_value).max() / largest)
            if not error < tolerance:
                raise StageError(
                    f'{work}: {name} of {other} and of {side} differ by {error:.1e} of the largest '
                    f'value; expected less than {tolerance:.0e}'
                )


class Program(NamedTuple):
    """A function compiled by XLA.

    Attributes:
      call: the compiled function.
      seconds: time of tracing, lowering and compiling.
      held_bytes: size of the inputs that the function uses.
      planned_bytes: memory that a call takes beyond its inputs, as the compiler plans it.
      flops: FLOPs of its matrix products.
    """

    call: Callable
    seconds: float
    held_bytes: int
    planned_bytes: int
    flops: float


def compile_program(function: Callable, *inputs) -> Program:
    """Compile a function, jitted or not, for these inputs, without calling it."""
    start = time.perf_counter()
    jitted = function if hasattr(function, 'trace') else jax.jit(function)
    traced = jitted.trace(*inputs)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - start
    plan = compiled.memory_analysis()
    planned = plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    held = plan.argument_size_in_bytes
    return Program(compiled, seconds, held, planned, flops.count_matmul_flops(traced.jaxpr))


def training_side(
    step: Callable, train_state: TrainState, frozen: Arrays, batch: Batch, result: str
) -> tuple[Side, float]:
    """Return JAX's side of a training step, and the FLOPs of the compiled step's products.

    Args:
      step: see training.step.train_step.
      train_state: the state of the training.
      frozen: the arrays that are not trained.
      batch: the batch of all steps.
      result: name of the loss in the results.
    """
    frozen, batch, key = jax.device_put((frozen, batch, jax.random.key(0)))
    program = compile_program(step, train_state, frozen, batch, key)
    held = jax_bytes((train_state.params, train_state.opt_state, frozen, batch))

    def run() -> Results:
        nonlocal train_state
        zeros = jax.tree.map(jnp.zeros_like, train_state.sums)
        train_state, _ = jax.block_until_ready(
            program.call(train_state._replace(sums=zeros), frozen, batch, key)
        )
        total, count = np.asarray(train_state.sums['loss'])
        return {result: total / count}

    return Side(run, held, program.seconds, program.planned_bytes), program.flops


def jax_bytes(tree) -> int:
    """Return the size in bytes of all arrays in a pytree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def torch_bytes(*groups: nn.Module | Mapping[str, torch.Tensor]) -> int:
    """Return the size in bytes of modules and inputs; a tensor that is shared counts once."""
    tensors = {}
    for group in groups:
        is_module = isinstance(group, nn.Module)
        values = [*group.parameters(), *group.buffers()] if is_module else group.values()
        tensors |= {tensor.data_ptr(): tensor.nbytes for tensor in values}
    return sum(tensors.values())


@dataclasses.dataclass(frozen=True)
class Torch:
    """PyTorch's settings: it runs on the GPU if there is one, with autocast to `dtype`."""

    dtype: str

    @property
    def device(self) -> str:
        """The name of the device."""
        return 'cuda' if torch.cuda.is_available() else 'cpu'

    def place(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the inputs on the device."""
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    @contextlib.contextmanager
    def iteration(self) -> Iterator[None]:
        """Begin an iteration, with autocast to `dtype`; autocast does nothing for float32."""
        if self.device == 'cuda':  # CUDA graphs reuse the memory of the last iteration's results
            torch.compiler.cudagraph_mark_step_begin()
        dtype = getattr(torch, self.dtype)
        with torch.autocast(self.device, dtype, enabled=dtype != torch.float32):
            yield

    def fetch(self, value: torch.Tensor) -> np.ndarray:
        """Wait for a result and return it as a float32 array on the host."""
        return value.detach().float().cpu().numpy()

    def variants(self, model: nn.Module, kind: str, with_compile: bool) -> dict[str, nn.Module]:
        """Return the model for each of PyTorch's sides, by the side's name.

        The sides share frozen parameters; each side has its own copy of the trainable ones.

        Args:
          model: the model with Hugging Face's towers, in which the parameters that are not trained
            need no gradient.
          kind: WORK, or RESULT for sides that store what depends on frozen weights alone. There
            the unchanged model is no side.
          with_compile: whether torch.compile is a side.
        """
        model = model.to(self.device)
        models = {'PyTorch': model} if kind == WORK else {}
        if kind == RESULT or fused.has_window_attention(model):
            models['PyTorch SDPA'] = self._fused(model, kind)
        if with_compile:
            own = self._fused(model, kind)
            models['torch.compile'] = torch.compile(own, mode=compile_mode(self.device))
        return models

    def _fused(self, model: nn.Module, kind: str) -> nn.Module:
        shared = [p for p in model.parameters() if not p.requires_grad]
        own = fused.fuse_attention(copy.deepcopy(model, {id(tensor): tensor for tensor in shared}))
        return fused.store_frozen(own, getattr(torch, self.dtype)) if kind == RESULT else own


def compile_mode(device: str) -> str | None:
    """Return torch.compile's mode: with CUDA graphs on a GPU, else the default."""
    return 'reduce-overhead' if device == 'cuda' else None
