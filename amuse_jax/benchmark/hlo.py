"""What a program compiled for TPUs does in a run, read from the text of its optimised module.

XLA's own cost analysis counts the body of a loop once. Here everything counts as often as it runs.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

# How often a device sends the whole array of a collective, in a ring of many devices.
SENT = {
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
# They only name, move or group what others made.
_FREE = {
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'iota',
    'partition-id', 'replica-id', 'while', 'conditional', 'call',
}  # fmt: skip
_SLICES = 'dynamic-slice', 'slice', 'gather'  # they read of their first operand what they take


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, op: such as 'fusion.3' and 'fusion'.
      shape: as written, layouts included.
      arguments: what stands in its brackets: names of others, or a value.
      rest: attributes, as written.
    """

    name: str
    op: str
    shape: str
    arguments: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return _NAME.findall(self.arguments)

    def attribute(self, name: str) -> str:
        """The computation that an attribute such as `body` names; '' where there is none."""
        found = re.search(rf'\b{name}=%([\w.\-]+)', self.rest)
        return found.group(1) if found else ''


@dataclasses.dataclass
class Costs:
    """Of one run on one device.

    Attributes:
      cycles: that the compiler expects, collectives apart.
      hbm_bytes: read from and written to the memory, padding of the layouts included.
      collectives: by kind, bytes of the whole arrays.
      calls: by kind, how often.
      kernel_flops: of hand-written kernels, by name and their own estimate; `cycles` lacks them.
      scopes: cycles by the source's name of the operation.
    """

    cycles: int
    hbm_bytes: int
    collectives: Counter[str]
    calls: Counter[str]
    kernel_flops: Counter[str]
    scopes: Counter[str]


def costs(text: str) -> Costs:
    """Costs of a module for TPUs, from `compiled.as_text()`.

    Raises:
      ValueError: a loop whose number of runs is not known, or a text without entry.
    """
    computations, entry = _parse(text)
    total = Costs(0, 0, Counter(), Counter(), Counter(), Counter())
    for instruction, times, others in _runs(computations, entry, 1):
        for kind, size in _exchanged(instruction, others, computations):
            total.collectives[kind] += times * size
            total.calls[kind] += times
        if kernel := _KERNEL.search(instruction.rest):
            name = instruction.name.split('.')[0]  # the compiler numbers them
            total.kernel_flops[name] += times * int(kernel.group(1))
        elif cycles := _CYCLES.search(instruction.rest):
            scope = re.search(r'op_name="([^"]*)"', instruction.rest)
            total.cycles += times * int(cycles.group(1))
            total.scopes[scope.group(1) if scope else ''] += times * int(cycles.group(1))
        total.hbm_bytes += times * _traffic(instruction, others, computations)
    return total


Computation = dict[str, Instruction]
Computations = dict[str, Computation]


def _parse(text: str) -> tuple[Computations, str]:
    computations, entry, current = {}, '', {}
    # A kernel's metadata is written over several lines.
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
    end = _closing(text) + 1 if text.startswith('(') else text.index(' ')
    shape, rest = text[:end], text[end:].lstrip()
    op = rest[: rest.index('(')]
    rest = rest[len(op) :]
    end = _closing(rest)
    return Instruction(name, op, shape, rest[1:end], rest[end + 1 :])


def _closing(text: str) -> int:
    """Where the bracket that `text` begins with is closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == '(') - (letter == ')')
        if not depth:
            return place
    raise ValueError(f'expected a closed bracket in {text[:80]!r}')


def _runs(
    computations: Computations, name: str, times: int
) -> Iterator[tuple[Instruction, int, Computation]]:
    """Every instruction that runs by itself, how often, and its computation."""
    for instruction in computations[name].values():
        if instruction.op == 'while':
            count = times * _trips(computations, instruction)
            yield from _runs(computations, instruction.attribute('body'), count)
        elif instruction.op in ('call', 'async-start'):
            called = instruction.attribute('to_apply') or instruction.attribute('calls')
            yield from _runs(computations, called, times)
        elif instruction.op == 'conditional':  # either way: they are small here
            for branch in _NAME.findall(instruction.rest.split('metadata=')[0]):
                if branch in computations:
                    yield from _runs(computations, branch, times)
        else:
            yield instruction, times, computations[name]


def _exchanged(
    instruction: Instruction, others: Computation, computations: Computations
) -> Iterator[tuple[str, int]]:
    """The collectives that an instruction is or holds: kind, bytes of the whole array."""
    kind = instruction.op.removesuffix('-start')
    if kind in SENT:
        given = sum(
            sum(_bytes(others[name].shape, only_hbm=False)) for name in instruction.operands
        )
        made = sum(_bytes(instruction.shape, only_hbm=False))
        if instruction.op.endswith('-start') and kind != 'all-reduce':
            made -= given  # its result names its operands too
        yield kind, max(given, made)
    if instruction.op == 'fusion':
        inside = computations.get(instruction.attribute('calls'), {})
        for each in inside.values():
            yield from _exchanged(each, inside, computations)


def _trips(computations: Computations, loop: Instruction) -> int:
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known.group(1))
    condition = computations[loop.attribute('condition')].values()
    limits = [each.arguments for each in condition if each.op == 'constant']
    if len(limits) != 1:
        raise ValueError(f'expected one limit in the condition of {loop.name}, found {limits}')
    return int(limits[0])


def _traffic(instruction: Instruction, others: Computation, computations: Computations) -> int:
    """Bytes between the chip and its memory; what the compiler placed on the chip costs none."""
    if instruction.op in _FREE or instruction.op.endswith('-done'):
        return 0
    inside = (
        computations.get(instruction.attribute('calls'), {}) if instruction.op == 'fusion' else {}
    )
    if instruction.op.removesuffix('-start') in _SLICES:
        return _taken(instruction, others)
    if instruction.op.endswith('-start'):  # its result names its operands too
        return sum(_bytes(instruction.shape))
    if not inside:
        return sum(_bytes(instruction.shape)) + sum(
            sum(_bytes(others[name].shape)) for name in instruction.operands if name in others
        )
    return _written(instruction, inside) + sum(
        _read(each, inside) for each in inside.values() if each.op == 'parameter'
    )


def _taken(instruction: Instruction, others: Computation) -> int:
    """Of a slice by itself: what it takes is read, and written."""
    arrays = [found.group() for found in _ARRAY.finditer(instruction.shape)]
    taken = arrays[1 if instruction.op.endswith('-start') else 0]
    source = others[instruction.operands[0]]
    read = sum(_bytes(taken, only_hbm=False)) if sum(_bytes(source.shape)) else 0
    return read + sum(_bytes(taken))


def _read(parameter: Instruction, inside: Computation) -> int:
    """Of a fusion's parameter: the whole, or the slices of it that are used."""
    whole, total = sum(_bytes(parameter.shape)), 0
    for user in inside.values():
        if parameter.name not in user.operands:
            continue
        is_first = user.operands[0] == parameter.name
        if is_first and user.op == 'dynamic-update-slice':
            continue  # written in place
        if not is_first or user.op not in _SLICES:
            return whole
        total += sum(_bytes(user.shape, only_hbm=False)) if whole else 0
    return total


def _written(fusion: Instruction, inside: Computation) -> int:
    """Of a fusion's results: the whole, or the slices that are changed in place."""
    updates = [each for each in inside.values() if each.op == 'dynamic-update-slice']
    total = sum(_bytes(fusion.shape))
    for update in updates:
        if sum(_bytes(update.shape)):
            whole, part = (
                sum(_bytes(inside[n].shape, only_hbm=False)) for n in update.operands[:2]
            )
            total -= max(0, whole - part)
    return max(0, total)


def _bytes(shape: str, only_hbm: bool = True) -> Iterator[int]:
    """Of each array of a shape, as it lies in memory; `S(1)` in a layout is the chip's own."""
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
