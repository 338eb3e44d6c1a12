"""What both sides do: that they agree, and how long and how much memory each takes."""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
import torch
from torch import nn

from amuse_jax.benchmark import timing
from amuse_jax.errors import StageError
from amuse_jax.models import flops

TOLERANCES = {'float32': 1e-3, 'bfloat16': 5e-2}  # relative to the largest value
Found = dict[str, np.ndarray]

# Kinds of rows: every side computes the same graph; or all find the same, and JAX by less work,
# because it shares and stores what the reference computes again.
WORK, RESULT = 'same work', 'same result'


@dataclasses.dataclass(frozen=True)
class Side:
    """One way of doing the work.

    Attributes:
      run: does it, and returns by name what it found when it is done; what another side finds under
        the same name must be equal.
      held: bytes of weights, optimiser and inputs.
      compile_seconds: that XLA took; None for PyTorch, whose first run compiles.
      planned: bytes that XLA plans with beyond `held`, used where they can't be measured.
    """

    run: Callable[[], Found]
    held: int
    compile_seconds: float | None = None
    planned: int = 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes:
      work: its name.
      kind: WORK or RESULT.
      samples: videos, questions or pictures in `seconds`.
      flops: of the matrix products of JAX in `seconds`.
      sides: by name; 'JAX' is what the others are compared with.
      expected: what the sides must find in their first run.
      seconds: from every side's seconds to those of the work, of the sides that do all of it, where
        that is made up of several runs or a side is another one's part.
      more: from the sides' medians to further figures of the row.
    """

    work: str
    kind: str
    samples: int
    flops: float
    sides: dict[str, Side]
    expected: Found = dataclasses.field(default_factory=dict)
    seconds: Callable[[Mapping[str, float]], dict[str, float]] = dict
    more: Callable[[Mapping[str, float]], dict[str, float]] = lambda medians: {}


def measure(made: Comparison, dtype: str, rounds: int, product: timing.Product) -> dict:
    """The row's figures; JAX's rate is set against that of `product`, which takes turns too.

    Raises:
      StageError: the sides differ.
    """
    first, peaks = _check(made, dtype)
    runs = {name: side.run for name, side in made.sides.items()}
    times = timing.in_turns({**runs, 'product': product.run}, rounds)
    medians = {name: value.median for name, value in times.items()}
    peak = product.flops / medians.pop('product')
    seconds = made.seconds(medians)
    rate = made.flops / seconds['JAX']
    rounds_of = [made.seconds({n: times[n].seconds[i] for n in runs}) for i in range(rounds)]
    spread = {n: timing.Times(tuple(each[n] for each in rounds_of)).spread for n in seconds}
    compiling = {n: side.compile_seconds for n, side in made.sides.items() if side.compile_seconds}
    if 'torch.compile' in made.sides:  # it compiles when it is first called
        compiling['torch.compile'] = first['torch.compile'] - medians['torch.compile']
    return {
        'work': made.work,
        'kind': made.kind,
        'samples': made.samples,
        'seconds': seconds,
        'spread': spread,
        'samples_per_second': {name: made.samples / value for name, value in seconds.items()},
        'times_faster': {
            name: value / seconds['JAX'] for name, value in seconds.items() if name != 'JAX'
        },
        'flops': made.flops,
        'flops_per_second': rate,
        'peak_flops_per_second': peak,
        'share_of_peak': rate / peak,
        'peak_bytes': peaks,
        'planned_bytes': {name: side.planned for name, side in made.sides.items() if side.planned},
        'compile_seconds': compiling,
        **made.more(medians),
    }


def _check(made: Comparison, dtype: str) -> tuple[dict[str, float], dict[str, int | None]]:
    """Runs every side twice, and compares what they find: a training step's second loss tells
    whether its gradient was right. Returns the seconds of the first run and the peak in bytes of
    the second one, by side."""
    seconds, found = {}, {}
    for name, side in made.sides.items():
        begun = time.perf_counter()
        found[name] = side.run()
        seconds[name] = time.perf_counter() - begun
    agree(made.work, found | {'what is expected': made.expected}, TOLERANCES[dtype])
    peaks = {}
    for name, side in made.sides.items():
        found[name], peaks[name] = _with_peak(side)
    agree(made.work, found, TOLERANCES[dtype])
    return seconds, peaks


def _with_peak(side: Side) -> tuple[Found, int | None]:
    """What a run finds, and how many bytes the side takes at most."""
    if jax.default_backend() != 'cpu' and side.planned:
        return side.run(), side.held + side.planned
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return side.run(), side.held + torch.cuda.max_memory_allocated() - before
    found = {}
    more = timing.peak_bytes(lambda: found.update(side.run()))
    return found, None if more is None else side.held + more


def agree(work: str, found: Mapping[str, Found], tolerance: float) -> None:
    """Compares what several sides found under the same name.

    Raises:
      StageError: two of them differ by more than `tolerance` of the largest value.
    """
    known: dict[str, tuple[str, np.ndarray]] = {}
    for side, results in found.items():
        for name, value in results.items():
            value = np.asarray(value, np.float32)
            other, theirs = known.setdefault(name, (side, value))
            largest = np.maximum(np.abs(value), np.abs(theirs)).max()
            error = float(np.abs(value - theirs).max() / largest)
            if not error < tolerance:
                raise StageError(
                    f'{work}: {name} of {other} and of {side} differ by {error:.1e} of the largest '
                    f'value; expected less than {tolerance:.0e}'
                )


class Program(NamedTuple):
    """What XLA makes of a function.

    Attributes:
      call: the compiled function.
      seconds: that tracing, lowering and compiling took.
      held: bytes of those of its inputs that it uses.
      planned: bytes that a call takes beyond its inputs, by the compiler's plan.
      flops: of its matrix products.
    """

    call: Callable
    seconds: float
    held: int
    planned: int
    flops: float


def compiled(function: Callable, *inputs) -> Program:
    """Compiles a function, jitted already or not, for inputs that it is not called with."""
    begun = time.perf_counter()
    jitted = function if hasattr(function, 'trace') else jax.jit(function)
    traced = jitted.trace(*inputs)
    made = traced.lower().compile()
    seconds = time.perf_counter() - begun
    plan = made.memory_analysis()
    planned = plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    held = plan.argument_size_in_bytes
    return Program(made, seconds, held, planned, flops.of_products(traced.jaxpr))


def jax_bytes(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def torch_bytes(*held: nn.Module | Mapping[str, torch.Tensor]) -> int:
    """Bytes of parameters, buffers and inputs; what several of them share counts once."""
    tensors = {}
    for one in held:
        values = [*one.parameters(), *one.buffers()] if isinstance(one, nn.Module) else one.values()
        tensors |= {tensor.data_ptr(): tensor.nbytes for tensor in values}
    return sum(tensors.values())


@dataclasses.dataclass(frozen=True)
class Torch:
    """How PyTorch runs: on the GPU if there is one, in `dtype` by autocast."""

    dtype: str

    @property
    def device(self) -> str:
        return 'cuda' if torch.cuda.is_available() else 'cpu'

    def place(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def autocast(self) -> torch.autocast:
        dtype = getattr(torch, self.dtype)
        return torch.autocast(self.device, dtype, enabled=dtype != torch.float32)

    def done(self, value: torch.Tensor) -> np.ndarray:
        """Waits for a result, and fetches it."""
        return value.detach().float().cpu().numpy()

    def variants(self, model: nn.Module, with_compile: bool) -> dict[str, nn.Module]:
        """The model as each of PyTorch's sides runs it; each trains parameters of its own, and
        frozen ones are shared."""
        model = model.to(self.device)
        found = {'PyTorch': model}
        if with_compile:
            shared = [p for p in model.parameters() if not p.requires_grad]
            own = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
            found['torch.compile'] = torch.compile(own)
        return found
