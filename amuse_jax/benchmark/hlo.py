"""Costs of one run of a compiled program, read from the text of its optimised module.

`costs` is for TPUs; hlo_gpu.py uses the same reader for GPUs.

XLA's own cost analysis counts the body of a loop once. Here every instruction counts as often as it
runs.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

# How often each device sends the whole array, by collective, in a ring of many devices.
RING_SENDS = {
    'all-reduce': 2,
    'all-gather': 1,
    'reduce-scatter': 1,
    'all-to-all': 1,
    'collective-permute': 1,
    'collective-broadcast': 1,
    'ragged-all-to-all': 1,
}
_BITS = {'pred': 8, 'bf16': 16, 'u4': 4, 's4': 4, 'token': 0, 'f8e4m3fn': 8, 'f8e5m2': 8}
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\](?:\{([^}]*)\})?')
_NAME = re.compile(r'%([\w.\-]+)')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%([\w.\-]+) = ')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KERNEL = re.compile(r'"cost_estimate":\{"flops":"(\d+)"')
# These instructions only name, move or group the results of others.
NO_TRAFFIC = {
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'iota',
    'partition-id', 'replica-id', 'while', 'conditional', 'call',
}  # fmt: skip
SLICES = 'dynamic-slice', 'slice', 'gather'  # they read only a part of their first operand


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: the instruction's name, such as 'fusion.3'.
      op: the operation, such as 'fusion'.
      shape: the result's shape as text, with layouts.
      arguments: the text in the brackets: names of other instructions, or a value.
      rest: the attributes as text.
    """

    name: str
    op: str
    shape: str
    arguments: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """The names of the instructions in `arguments`."""
        return _NAME.findall(self.arguments)

    def attribute(self, name: str) -> str:
        """Return the computation that an attribute such as `body` names; '' if it is missing."""
        match = re.search(rf'\b{name}=%([\w.\-]+)', self.rest)
        return match.group(1) if match else ''


@dataclasses.dataclass
class Costs:
    """Costs of one run on one device.

    Attributes:
      cycles: cycles that the compiler estimates, without collectives and hand-written kernels.
      hbm_bytes: bytes read from and written to HBM, with the padding of the layouts.
      collectives: bytes of the whole arrays, by kind of collective.
      calls: number of calls, by kind of collective.
      kernel_flops: FLOPs of hand-written kernels by name, from their own estimates.
      scopes: cycles by the operation's name in the source code.
    """

    cycles: int
    hbm_bytes: int
    collectives: Counter[str]
    calls: Counter[str]
    kernel_flops: Counter[str]
    scopes: Counter[str]


def costs(text: str) -> Costs:
    """Return the costs of a module for TPUs.

    Args:
      text: the module's text, from `compiled.as_text()`.

    Raises:
      ValueError: a loop's trip count is unknown, or the text has no entry computation.
    """
    computations, entry = parse(text)
    total = Costs(0, 0, Counter(), Counter(), Counter(), Counter())
    for instruction, times, computation in executed(computations, entry, 1):
        for kind, size in collectives(instruction, computation, computations):
            total.collectives[kind] += times * size
            total.calls[kind] += times
        if kernel := _KERNEL.search(instruction.rest):
            name = instruction.name.split('.')[0]  # without the number that the compiler adds
            total.kernel_flops[name] += times * int(kernel.group(1))
        elif cycles := _CYCLES.search(instruction.rest):
            scope = re.search(r'op_name="([^"]*)"', instruction.rest)
            total.cycles += times * int(cycles.group(1))
            total.scopes[scope.group(1) if scope else ''] += times * int(cycles.group(1))
        total.hbm_bytes += times * _hbm_traffic(instruction, computation, computations)
    return total


Computation = dict[str, Instruction]
Computations = dict[str, Computation]


def parse(text: str) -> tuple[Computations, str]:
    """Return the module's computations by name, and the name of the entry computation."""
    computations, entry, current = {}, '', {}
    # The metadata of a kernel spans several lines.
    for line in re.sub(r'\n(?="|}})', ' ', text).splitlines():
        opening = re.match(r'(ENTRY )?%([\w.\-]+) \(', line)
        if opening:
            current = computations.setdefault(opening.group(2), {})
            entry = opening.group(2) if opening.group(1) else entry
        elif found := _INSTRUCTION.match(line):
            current[found.group(1)] = _instruction(found.group(1), line[found.end() :])
    if not entry:
        raise ValueError('expected the text of a compiled module; found no ENTRY in it')
    return computations, entry


def _instruction(name: str, text: str) -> Instruction:
    """Parse the text to the right of `%name = `."""
    end = _closing_bracket(text) + 1 if text.startswith('(') else text.index(' ')
    shape, rest = text[:end], text[end:].lstrip()
    op = rest[: rest.index('(')]
    rest = rest[len(op) :]
    end = _closing_bracket(rest)
    return Instruction(name, op, shape, rest[1:end], rest[end + 1 :])


def _closing_bracket(text: str) -> int:
    """Return the position of the bracket that closes the first character of `text`."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == '(') - (letter == ')')
        if not depth:
            return position
    raise ValueError(f'expected a closed bracket in {text[:80]!r}')


def executed(
    computations: Computations,
    name: str,
    times: int,
    cost: Callable[[Instruction, Computation], int] | None = None,
) -> Iterator[tuple[Instruction, int, Computation]]:
    """Yield every instruction that is executed, how often it runs, and its computation.

    Instructions inside a fusion are not executed one by one.

    Args:
      computations: the module's computations, from `parse`.
      name: the computation to start with.
      times: how often it runs.
      cost: the cost of an instruction in its computation. Only the branch of a conditional with the
        highest cost is executed. If None, all branches are: they are small here.
    """
    for instruction in computations[name].values():
        if instruction.op == 'while':
            count = times * _trip_count(computations, instruction)
            yield from executed(computations, instruction.attribute('body'), count, cost)
        elif instruction.op in ('call', 'call-start', 'async-start'):
            called = instruction.attribute('to_apply') or instruction.attribute('calls')
            yield from executed(computations, called, times, cost)
        elif instruction.op == 'conditional':
            branches = [
                list(executed(computations, branch, times, cost))
                for branch in _NAME.findall(instruction.rest.split('metadata=')[0])
                if branch in computations
            ]
            if cost:
                branches = [max(branches, key=lambda runs: sum(n * cost(i, c) for i, n, c in runs))]
            for runs in branches:
                yield from runs
        else:
            yield instruction, times, computations[name]


def collectives(
    instruction: Instruction, computation: Computation, computations: Computations
) -> Iterator[tuple[str, int]]:
    """Yield the collectives that an instruction is or contains: kind, bytes of the whole array."""
    kind = instruction.op.removesuffix('-start')
    if kind in RING_SENDS:
        operand_bytes = sum(
            sum(array_bytes(computation[name].shape, only_hbm=False))
            for name in instruction.operands
        )
        result_bytes = sum(array_bytes(instruction.shape, only_hbm=False))
        if instruction.op.endswith('-start') and kind != 'all-reduce':
            result_bytes -= operand_bytes  # the result's shape lists the operands too
        yield kind, max(operand_bytes, result_bytes)
    if instruction.op == 'fusion':
        fused = computations.get(instruction.attribute('calls'), {})
        for each in fused.values():
            yield from collectives(each, fused, computations)


def _trip_count(computations: Computations, loop: Instruction) -> int:
    """Return how often a while loop runs."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known.group(1))
    condition = computations[loop.attribute('condition')].values()
    limits = [each.arguments for each in condition if each.op == 'constant']
    if len(limits) != 1:
        raise ValueError(f'expected one limit in the condition of {loop.name}, found {limits}')
    return int(limits[0])


def _hbm_traffic(
    instruction: Instruction, computation: Computation, computations: Computations
) -> int:
    """Return the bytes moved between the chip and its HBM.

    Arrays that the compiler placed in the chip's own memory cost nothing.
    """
    if instruction.op in NO_TRAFFIC or instruction.op.endswith('-done'):
        return 0
    fused = (
        computations.get(instruction.attribute('calls'), {}) if instruction.op == 'fusion' else {}
    )
    if instruction.op.removesuffix('-start') in SLICES:
        return _slice_traffic(instruction, computation)
    if instruction.op.endswith('-start'):  # the result's shape lists the operands too
        return sum(array_bytes(instruction.shape))
    if not fused:
        return sum(array_bytes(instruction.shape)) + sum(
            sum(array_bytes(computation[name].shape))
            for name in instruction.operands
            if name in computation
        )
    return _bytes_written(instruction, fused) + sum(
        _bytes_read(each, fused) for each in fused.values() if each.op == 'parameter'
    )


def _slice_traffic(instruction: Instruction, computation: Computation) -> int:
    """Return the traffic of a slice outside a fusion: the slice is read and written."""
    arrays = [match.group() for match in _ARRAY.finditer(instruction.shape)]
    piece = arrays[1 if instruction.op.endswith('-start') else 0]
    source = computation[instruction.operands[0]]
    read = sum(array_bytes(piece, only_hbm=False)) if sum(array_bytes(source.shape)) else 0
    return read + sum(array_bytes(piece))


def _bytes_read(parameter: Instruction, fused: Computation) -> int:
    """Return the bytes read of a fusion's parameter: all of it, or the slices that are used."""
    whole, total = sum(array_bytes(parameter.shape)), 0
    for user in fused.values():
        if parameter.name not in user.operands:
            continue
        is_first = user.operands[0] == parameter.name
        if is_first and user.op == 'dynamic-update-slice':
            continue  # this array is updated in place
        if not is_first or user.op not in SLICES:
            return whole
        total += sum(array_bytes(user.shape, only_hbm=False)) if whole else 0
    return total


def _bytes_written(fusion: Instruction, fused: Computation) -> int:
    """Return the bytes written of a fusion's results: all, or the slices updated in place."""
    updates = [each for each in fused.values() if each.op == 'dynamic-update-slice']
    total = sum(array_bytes(fusion.shape))
    for update in updates:
        if sum(array_bytes(update.shape)):
            whole, part = (
                sum(array_bytes(fused[n].shape, only_hbm=False)) for n in update.operands[:2]
            )
            total -= max(0, whole - part)
    return max(0, total)


def array_bytes(shape: str, only_hbm: bool = True) -> Iterator[int]:
    """Yield the bytes of every array in a shape, with the padding of its layout.

    `S(1)` in a layout means the chip's own memory; `only_hbm` leaves such arrays out.
    """
    for kind, sizes, layout in _ARRAY.findall(shape):
        if only_hbm and re.search(r'S\([1-9]', layout):
            continue
        dimensions = [int(size) for size in sizes.split(',') if size]
        order, _, tiles = layout.partition(':')
        tile = re.match(r'T\(([\d,]+)\)', tiles)
        if tile and dimensions:
            minor = [int(axis) for axis in order.split(',')]
            for axis, step in zip(minor, reversed([int(n) for n in tile.group(1).split(',')])):
                dimensions[axis] = -(-dimensions[axis] // step) * step
        bits = _BITS.get(kind) or int(re.search(r'\d+$', kind).group())
        yield math.prod(dimensions) * bits // 8
