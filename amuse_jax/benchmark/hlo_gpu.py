"""Kernels of a program compiled for GPUs, read from the text of its optimised module.

Every kernel has its FLOPs, the bytes that it moves to and from memory, the arrays that it writes,
and the line of the source code that it comes from.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

from amuse_jax.benchmark import hlo, hlo_traffic
from amuse_jax.benchmark.hlo import Array, Computation, Instruction, Module
from amuse_jax.benchmark.hlo_sources import Sources
from amuse_jax.benchmark.hlo_traffic import Traffic

ATTENTION = 'attention'
ELEMENTWISE = 'elementwise and norms'
PRODUCTS = 'products'
STACKING = 'stacking and slicing'
TRANSPOSES = 'transposes'
COPIES = 'copies'
COLLECTIVES = 'collectives'
KINDS = (ATTENTION, ELEMENTWISE, PRODUCTS, STACKING, TRANSPOSES, COPIES, COLLECTIVES)

# Functions of this package whose kernels are attention's: scores, softmax, weights times values.
_ATTENTION = re.compile(r'/models/attention|attend|attention$|scores$|sum_values$|add_bias')
# The last part of an operation's name.
_STACKING = re.compile(r'dynamic_(update_)?(slice|index)')
_TRANSPOSES = re.compile(r'transpose|split|concatenate')

_DOT = re.compile(r'(\w+)_contracting_dim(?:ension)?s"?[=:][\[{]([\d,"]*)')
_STATED_FLOPS = re.compile(r'_(\d+)_flops\)*/pallas_call')  # by our own kernels, in their names
_SCORES = re.compile(r'"intermediate_tensor_shape":.*?"dimensions":\s*\[([\d", ]+)\]')


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
      name: its name in the module.
      kind: one of KINDS.
      scope: where it comes from, such as 'models/gelu.py:19 gelu, mul, for the gradient'.
      times: how often it runs in a step.
      flops: FLOPs of its matrix products in one run.
      bytes: bytes that it moves to and from memory in one run.
      written: the arrays that it writes in one run; of an array updated in place, the new part.
    """

    name: str
    kind: str
    scope: str
    times: int
    flops: int
    bytes: int
    written: tuple[Array, ...] = ()


@dataclasses.dataclass
class Costs:
    """Costs of one run on one device.

    Attributes:
      kernels: all kernels.
      collectives: bytes of the whole arrays, by kind of collective.
      calls: number of calls, by kind of collective.
    """

    kernels: list[Kernel]
    collectives: Counter[str]
    calls: Counter[str]

    @property
    def launches(self) -> int:
        """The number of kernels that are launched."""
        return sum(kernel.times for kernel in self.kernels)

    @property
    def flops(self) -> int:
        """FLOPs of all matrix products; convolutions are left out."""
        return sum(kernel.times * kernel.flops for kernel in self.kernels)

    def bytes_by_kind(self) -> Counter[str]:
        """Return the bytes moved to and from memory by kind of kernel."""
        total = Counter()
        for kernel in self.kernels:
            total[kernel.kind] += kernel.times * kernel.bytes
        return total

    def arrays(self) -> Iterator[tuple[Array, Kernel]]:
        """Yield every array that a kernel writes to memory, and the kernel."""
        for kernel in self.kernels:
            for array in kernel.written:
                yield array, kernel


def costs(text: str) -> Costs:
    """Return the costs of a module for GPUs.

    A loop counts as often as it runs. Of a conditional, the branch that moves the most counts.
    hlo_traffic.py says how bytes are counted.

    Args:
      text: the module's text, from `compiled.as_text()`.

    Raises:
      ValueError: a loop's trip count is unknown, or the text has no entry computation.
    """
    module, sources = Module(text), Sources(text)
    traffic = Traffic(module, chip_memory=False)
    total = Costs([], *module.count_collectives(traffic))
    for instruction, times, computation in module.executed(traffic):
        if not hlo_traffic.is_kernel(instruction):
            continue
        flops = _flops(instruction, computation, module)
        total.kernels.append(
            Kernel(
                name=instruction.name,
                kind=_kind(instruction, flops, module, sources),
                scope=sources.scope(instruction, computation),
                times=times,
                flops=flops,
                bytes=traffic(instruction, computation),
                written=tuple(traffic.written(instruction, computation)),
            )
        )
    return total


def _kind(instruction: Instruction, flops: int, module: Module, sources: Sources) -> str:
    op, last = instruction.base_op, instruction.source_op.split('/')[-1]
    ops = {op} | {each.op for each in module.fused(instruction).values()}
    if not ops.isdisjoint(hlo.RING_SENDS):
        return COLLECTIVES
    if '__cudnn$fmha' in instruction.rest:
        return ATTENTION
    is_product = flops > 0 or '__cudnn$conv' in instruction.rest
    if not is_product:
        if _STACKING.search(last) or op in ('dynamic-slice', 'dynamic-update-slice'):
            return STACKING
        if op == 'copy':
            return COPIES
        if _TRANSPOSES.fullmatch(last) or op in ('transpose', 'concatenate'):
            return TRANSPOSES
    if _is_attention(sources.stack(instruction)):
        return ATTENTION
    return PRODUCTS if is_product else ELEMENTWISE


def _is_attention(stack: list[tuple[str, str, int]]) -> bool:
    """Return whether an instruction comes from attention itself, not from a projection.

    Most projections are layers of a library, so their innermost frame is not in this package.
    """
    ours = [place for place in stack if 'amuse_jax/' in place[0]]
    if not stack or stack[0] not in ours or stack[0][1].endswith('project'):
        return False
    return any(_ATTENTION.search(file) or _ATTENTION.search(name) for file, name, _ in ours)


def _flops(instruction: Instruction, computation: Computation, module: Module) -> int:
    """Return the FLOPs of the matrix products that an instruction is or contains."""
    if fused := module.fused(instruction):
        return sum(_flops(each, fused, module) for each in fused.values())
    if instruction.op == 'custom-call' and (stated := _STATED_FLOPS.search(instruction.rest)):
        return int(stated.group(1))
    if instruction.op == 'custom-call' and '__cudnn$fmha' in instruction.rest:
        return _cudnn_flops(instruction, computation)
    if instruction.op != 'dot' and '__cublas$' not in instruction.rest:
        return 0
    contracted = dict(_DOT.findall(instruction.rest)).get('lhs', '')
    left = hlo.arrays(computation[instruction.operands[0]].shape)[0]
    depth = math.prod(left.shape[int(axis)] for axis in re.findall(r'\d+', contracted))
    return 2 * depth * hlo.arrays(instruction.shape)[0].size


def _cudnn_flops(instruction: Instruction, computation: Computation) -> int:
    """Return the FLOPs of cuDNN's attention: two products forwards, and five for the gradient."""
    scores = math.prod(int(n) for n in re.findall(r'\d+', _SCORES.search(instruction.rest)[1]))
    channels = hlo.arrays(computation[instruction.operands[0]].shape)[0].shape[-1]
    return 2 * scores * channels * (5 if 'Backward' in instruction.rest else 2)
