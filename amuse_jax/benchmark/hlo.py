"""Reader of the text of a module that XLA compiled, for TPUs or for GPUs.

XLA's own cost analysis counts the body of a loop once. Here every instruction counts as often as it
runs. `traffic` counts the bytes that instructions move, and hlo_tpu.py and hlo_gpu.py the costs of
a whole module.
"""

import dataclasses
import functools
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
SAME_BYTES = 'bitcast', 'reshape'  # they give an array another shape, and move nothing
_CALLS = 'call', 'call-start', 'async-start'


@dataclasses.dataclass(frozen=True)
class Array:
    """An array that an instruction reads or writes.

    Attributes:
      dtype: such as 'bf16'.
      shape: its dimensions.
      bytes: its size, with the padding of its layout.
      space: the number of its memory space. On a TPU, 0 is its HBM, and 1 is the chip's own memory.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    space: int = 0

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@functools.cache
def arrays(shape: str) -> tuple[Array, ...]:
    """Return every array in a shape, such as '(bf16[8,128]{1,0:T(8,128)S(1)}, s32[])'."""
    return tuple(_array(*found) for found in _ARRAY.findall(shape))


def _array(dtype: str, sizes: str, layout: str) -> Array:
    shape = tuple(int(size) for size in sizes.split(',') if size)
    padded = list(shape)
    order, _, tiles = layout.partition(':')
    tile = re.match(r'T\(([\d,]+)\)', tiles)
    if tile and shape:
        minor = [int(axis) for axis in order.split(',')]
        for axis, step in zip(minor, reversed([int(n) for n in tile.group(1).split(',')])):
            padded[axis] = -(-padded[axis] // step) * step
    bits = _BITS.get(dtype)
    if bits is None:
        bits = int(re.search(r'\d+$', dtype).group())
    space = re.search(r'S\((\d+)\)', layout)
    return Array(dtype, shape, math.prod(padded) * bits // 8, int(space.group(1)) if space else 0)


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

    @functools.cached_property
    def operands(self) -> list[str]:
        """The names of the instructions in `arguments`."""
        return _NAME.findall(self.arguments)

    @property
    def base_op(self) -> str:
        """The operation without the suffix '-start' of an asynchronous one."""
        return self.op.removesuffix('-start')

    @property
    def source_op(self) -> str:
        """The name of the operation in the source code, such as 'jit(f)/dot_general', or ''."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found.group(1) if found else ''

    def attribute(self, name: str) -> str:
        """Return the computation that an attribute such as `body` names; '' if it is missing."""
        match = re.search(rf'\b{name}=%([\w.\-]+)', self.rest)
        return match.group(1) if match else ''


Computation = dict[str, Instruction]


class Module:
    """The computations of a compiled module.

    Attributes:
      computations: the instructions of every computation, by name.
      entry: the name of the computation that the program starts with.

    Args:
      text: the module's text, from `compiled.as_text()`.

    Raises:
      ValueError: the text has no entry computation.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry, current = '', {}
        # The metadata of a kernel spans several lines.
        for line in re.sub(r'\n(?="|}})', ' ', text).splitlines():
            opening = re.match(r'(ENTRY )?%([\w.\-]+) \(', line)
            if opening:
                current = self.computations.setdefault(opening.group(2), {})
                self.entry = opening.group(2) if opening.group(1) else self.entry
            elif found := _INSTRUCTION.match(line):
                current[found.group(1)] = _instruction(found.group(1), line[found.end() :])
        if not self.entry:
            raise ValueError('expected the text of a compiled module; found no ENTRY in it')

    def fused(self, instruction: Instruction) -> Computation:
        """Return the instructions of a fusion by name; none for other instructions."""
        if instruction.base_op != 'fusion':
            return {}
        return self.computations.get(instruction.attribute('calls'), {})

    def executed(
        self, cost: Callable[[Instruction, Computation], int]
    ) -> Iterator[tuple[Instruction, int, Computation]]:
        """Yield every instruction that is executed, how often it runs, and its computation.

        Instructions inside a fusion are not executed one by one. Of a conditional, the branch with
        the highest cost is executed.

        Args:
          cost: a function of an instruction and its computation.

        Raises:
          ValueError: a loop's trip count is unknown.
        """
        yield from self._executed(self.entry, 1, cost)

    def _executed(self, name, times, cost):
        for instruction in self.computations[name].values():
            if instruction.op == 'while':
                count = times * self._trip_count(instruction)
                yield from self._executed(instruction.attribute('body'), count, cost)
            elif instruction.op in _CALLS:
                called = instruction.attribute('to_apply') or instruction.attribute('calls')
                yield from self._executed(called, times, cost)
            elif instruction.op == 'conditional':
                branches = [
                    list(self._executed(branch, times, cost))
                    for branch in _NAME.findall(instruction.rest.split('metadata=')[0])
                    if branch in self.computations
                ]
                yield from max(branches, key=lambda runs: sum(n * cost(i, c) for i, n, c in runs))
            else:
                yield instruction, times, self.computations[name]

    def _trip_count(self, loop: Instruction) -> int:
        """Return how often a while loop runs."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
        if known:
            return int(known.group(1))
        condition = self.computations[loop.attribute('condition')].values()
        limits = [each.arguments for each in condition if each.op == 'constant']
        if len(limits) != 1:
            raise ValueError(f'expected one limit in the condition of {loop.name}, found {limits}')
        return int(limits[0])

    def count_collectives(
        self, cost: Callable[[Instruction, Computation], int]
    ) -> tuple[Counter[str], Counter[str]]:
        """Return the bytes of all executed collectives and the number of calls, by kind.

        The argument is that of `executed`.
        """
        sizes, calls = Counter(), Counter()
        for instruction, times, computation in self.executed(cost):
            for kind, size in self.collectives(instruction, computation):
                sizes[kind] += times * size
                calls[kind] += times
        return sizes, calls

    def collectives(
        self, instruction: Instruction, computation: Computation
    ) -> Iterator[tuple[str, int]]:
        """Yield the collectives that an instruction is or contains: kind, bytes of the array.

        The bytes are those of the whole array, of which a device may hold a part.
        """
        kind = instruction.base_op
        if kind in RING_SENDS:
            operand_bytes = sum(
                sum(array.bytes for array in arrays(computation[name].shape))
                for name in instruction.operands
            )
            result_bytes = sum(array.bytes for array in arrays(instruction.shape))
            if lists_operands(instruction):
                result_bytes -= operand_bytes
            yield kind, max(operand_bytes, result_bytes)
        fused = self.fused(instruction)
        for each in fused.values():
            yield from self.collectives(each, fused)


def origin(instruction: Instruction, computation: Computation) -> Instruction:
    """Return the instruction whose result a bitcast or a part of a tuple shows."""
    while instruction.op in (*SAME_BYTES, 'get-tuple-element'):
        instruction = computation[instruction.operands[0]]
    return instruction


def lists_operands(instruction: Instruction) -> bool:
    """Return whether the shape of an asynchronous operation's result lists its operands too."""
    return instruction.op.endswith('-start') and instruction.op != 'all-reduce-start'


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
