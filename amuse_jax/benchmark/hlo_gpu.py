"""Kernels of a program compiled for GPUs, read from the text of its optimised module.

Every kernel has its FLOPs, the bytes that it moves to and from memory, and the line of the source
code that it comes from.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

from amuse_jax.benchmark import hlo

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

_SAME_BYTES = 'bitcast', 'reshape'  # they give an array another shape, and move nothing
# How often an update moves the elements that it changes, once they have been computed.
_UPDATES = {'dynamic-update-slice': 1, 'scatter': 2}  # a scatter adds to what it reads
_DOT = re.compile(r'(\w+)_contracting_dim(?:ension)?s"?[=:][\[{]([\d,"]*)')
_STATED_FLOPS = re.compile(r'"product_flops":"(\d+)"')  # by our own kernels, in their metadata
_SCORES = re.compile(r'"intermediate_tensor_shape":.*?"dimensions":\s*\[([\d", ]+)\]')
_CONTAINERS = 'while', 'conditional', 'call'


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
    """

    name: str
    kind: str
    scope: str
    times: int
    flops: int
    bytes: int


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


def costs(text: str) -> Costs:
    """Return the costs of a module for GPUs.

    A loop counts as often as it runs. Of a conditional, the branch that moves the most counts. A
    fusion reads each operand once, or the slices of it that it uses, and writes its results once,
    or the slices that it updates in place.

    Args:
      text: the module's text, from `compiled.as_text()`.

    Raises:
      ValueError: a loop's trip count is unknown, or the text has no entry computation.
    """
    computations, entry = hlo.parse(text)
    sources = Sources(text)
    total = Costs([], Counter(), Counter())

    def traffic(instruction, computation):
        return _traffic(instruction, computation, computations) if _is_kernel(instruction) else 0

    for instruction, times, computation in hlo.executed(computations, entry, 1, traffic):
        for kind, size in hlo.collectives(instruction, computation, computations):
            total.collectives[kind] += times * size
            total.calls[kind] += times
        if not _is_kernel(instruction):
            continue
        flops = _flops(instruction, computation, computations)
        total.kernels.append(
            Kernel(
                name=instruction.name,
                kind=_kind(instruction, flops, computations, sources),
                scope=sources.scope(instruction, computation),
                times=times,
                flops=flops,
                bytes=traffic(instruction, computation),
            )
        )
    return total


class Sources:
    """The stack frames of a module: where in the source code its instructions come from.

    Args:
      text: the module's text.
    """

    def __init__(self, text: str):
        files, functions = (
            dict(re.findall(r'^(\d+) "(.*)"$', _table(text, name), re.MULTILINE))
            for name in ('FileNames', 'FunctionNames')
        )
        pattern = r'^(\d+) {file_name_id=(\d+) function_name_id=(\d+) line=(\d+)'
        places = {
            place: (files[file], functions[function], int(line))
            for place, file, function, line in re.findall(
                pattern, _table(text, 'FileLocations'), re.MULTILINE
            )
        }
        pattern = r'^(\d+) {file_location_id=(\d+)(?: parent_frame_id=(\d+))?'
        # The table adds one to the number of the parent, so that the outermost frame has 1.
        self._frames = {
            int(frame): (places[place], int(parent or 1) - 1)
            for frame, place, parent in re.findall(
                pattern, _table(text, 'StackFrames'), re.MULTILINE
            )
        }

    def stack(self, instruction: hlo.Instruction) -> list[tuple[str, str, int]]:
        """Return file, function and line of the instruction's frames, innermost first."""
        found = re.search(r'stack_frame_id=(\d+)', instruction.rest)
        frame, stack = int(found.group(1)) if found else 0, []
        while frame in self._frames:
            place, frame = self._frames[frame]
            stack.append(place)
        return stack

    def scope(self, instruction: hlo.Instruction, computation: hlo.Computation) -> str:
        """Return the line of this package that the instruction comes from, and its operation.

        An instruction that the compiler added, such as a copy, is named after what it reads.
        """
        name = _operation(instruction)
        if not name:
            sources = (_origin(computation[n], computation) for n in instruction.operands)
            read = ', '.join(sorted({source.op for source in sources}))
            return f'{instruction.op} of the result of {read}' if read else instruction.op
        parts = [name.split('/')[-1]]
        if 'rematted_computation' in name:
            parts.append('recomputed')
        elif 'transpose(' in name:
            parts.append('for the gradient')
        ours = [place for place in self.stack(instruction) if 'amuse_jax/' in place[0]]
        if ours:
            file, function, line = ours[0]
            parts.insert(0, f'{file.split("amuse_jax/")[-1]}:{line} {function}')
        return ', '.join(parts)

    def is_attention(self, instruction: hlo.Instruction) -> bool:
        """Return whether the instruction comes from attention itself, not from a projection.

        The projections are layers of a library, so their innermost frame is not in this package.
        """
        stack = self.stack(instruction)
        ours = [place for place in stack if 'amuse_jax/' in place[0]]
        if not stack or stack[0] not in ours:
            return False
        return any(_ATTENTION.search(file) or _ATTENTION.search(name) for file, name, _ in ours)


def _table(text: str, name: str) -> str:
    """Return a table that stands behind or in front of the module's computations."""
    found = re.search(rf'^{name}\n((?:\d+ .*\n?)*)', text, re.MULTILINE)
    return found.group(1) if found else ''


def _operation(instruction: hlo.Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', instruction.rest)
    return found.group(1) if found else ''


def _is_kernel(instruction: hlo.Instruction) -> bool:
    if instruction.op.endswith('-done') or instruction.op in _CONTAINERS:
        return False
    return instruction.op == 'iota' or instruction.op not in hlo.NO_TRAFFIC


def _kind(
    instruction: hlo.Instruction, flops: int, computations: hlo.Computations, sources: Sources
) -> str:
    op, last = instruction.op.removesuffix('-start'), _operation(instruction).split('/')[-1]
    ops = {op} | {each.op for each in _fused(instruction, computations).values()}
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
    if sources.is_attention(instruction):
        return ATTENTION
    return PRODUCTS if is_product else ELEMENTWISE


def _fused(instruction: hlo.Instruction, computations: hlo.Computations) -> hlo.Computation:
    """Return the instructions of a fusion by name; none for other instructions."""
    if instruction.op.removesuffix('-start') != 'fusion':
        return {}
    return computations.get(instruction.attribute('calls'), {})


def _flops(
    instruction: hlo.Instruction, computation: hlo.Computation, computations: hlo.Computations
) -> int:
    """Return the FLOPs of the matrix products that an instruction is or contains."""
    fused = _fused(instruction, computations)
    if fused:
        return sum(_flops(each, fused, computations) for each in fused.values())
    if stated := _STATED_FLOPS.search(instruction.rest):
        return int(stated.group(1))
    if instruction.op == 'custom-call' and '__cudnn$fmha' in instruction.rest:
        return _cudnn_flops(instruction, computation)
    if instruction.op != 'dot' and '__cublas$' not in instruction.rest:
        return 0
    contracted = dict(_DOT.findall(instruction.rest)).get('lhs', '')
    left = next(_dimensions(computation[instruction.operands[0]].shape))
    depth = math.prod(left[int(axis)] for axis in re.findall(r'\d+', contracted))
    return 2 * depth * math.prod(next(_dimensions(instruction.shape)))


def _cudnn_flops(instruction: hlo.Instruction, computation: hlo.Computation) -> int:
    """Return the FLOPs of cuDNN's attention: two products forwards, and five for the gradient."""
    scores = math.prod(int(n) for n in re.findall(r'\d+', _SCORES.search(instruction.rest)[1]))
    channels = next(_dimensions(computation[instruction.operands[0]].shape))[-1]
    return 2 * scores * channels * (5 if 'Backward' in instruction.rest else 2)


def _dimensions(shape: str) -> Iterator[list[int]]:
    for sizes in re.findall(r'\w+\[([\d,]*)\]', shape):
        yield [int(size) for size in sizes.split(',') if size]


def _traffic(
    instruction: hlo.Instruction, computation: hlo.Computation, computations: hlo.Computations
) -> int:
    """Return the bytes that an instruction moves to and from the device's memory."""
    op, operands = instruction.op.removesuffix('-start'), dict.fromkeys(instruction.operands)
    if op == 'fusion':
        fused = _fused(instruction, computations)
        return _bytes_written(fused) + sum(
            _bytes_read(each, fused, computations)
            for each in fused.values()
            if each.op == 'parameter'
        )
    if op in hlo.SLICES:
        return 2 * _size(instruction)
    if op in _UPDATES:
        return (1 + _UPDATES[op]) * _size(computation[_update(instruction)])
    read = sum(_size(computation[name]) for name in operands if name in computation)
    if op in hlo.RING_SENDS or op == 'copy':
        written = _size(instruction)
        if instruction.op.endswith('-start') and op != 'all-reduce':
            written -= read  # the result's shape lists the operands too
        return read + written
    return read + _size(instruction)


def _size(instruction: hlo.Instruction) -> int:
    """Return the bytes of an instruction's results, without a library's scratch memory."""
    shape = instruction.shape
    if instruction.op == 'custom-call' and shape.startswith('('):
        shape = re.sub(r'[su]8\[\d*\](\{0\})?(?=\)$)', '', shape)
    return sum(hlo.array_bytes(shape, only_hbm=False))


def _bytes_read(
    array: hlo.Instruction, fused: hlo.Computation, computations: hlo.Computations
) -> int:
    """Return the bytes read of a fusion's operand: all of it, or the slices that are used."""
    whole, total = _size(array), 0
    for user in fused.values():
        if array.name not in user.operands:
            continue
        is_first = user.operands[0] == array.name
        if user.op in _SAME_BYTES:
            total += _bytes_read(user, fused, computations)
        elif is_first and user.op in hlo.SLICES:
            total += _size(user)
        elif user.op == 'fusion':
            inner = _fused(user, computations)
            place = user.operands.index(array.name)
            parameters = {each.arguments: each for each in inner.values() if each.op == 'parameter'}
            total += _bytes_read(parameters[str(place)], inner, computations)
        elif is_first and user.op in _UPDATES and _is_in_place(user, fused):
            continue
        else:
            return whole
    return min(whole, total)


def _bytes_written(fused: hlo.Computation) -> int:
    """Return the bytes written of a fusion's results: all, or the slices updated in place."""
    root = next(reversed(fused.values()))
    results = [fused[name] for name in root.operands] if root.op == 'tuple' else [root]
    total = 0
    for result in results:
        source = _origin(result, fused)
        if source.op in _UPDATES and _is_in_place(source, fused):
            total += _UPDATES[source.op] * _size(fused[_update(source)])
        else:
            total += _size(result)
    return total


def _update(instruction: hlo.Instruction) -> str:
    """Return the name of the operand that holds the new elements."""
    return instruction.operands[1 if instruction.op == 'dynamic-update-slice' else -1]


def _is_in_place(update: hlo.Instruction, fused: hlo.Computation) -> bool:
    """Return whether an update changes one of the fusion's operands, not an array made inside."""
    return _origin(fused[update.operands[0]], fused).op == 'parameter'


def _origin(instruction: hlo.Instruction, fused: hlo.Computation) -> hlo.Instruction:
    """Return the instruction that a bitcast or a part of a tuple shows."""
    while instruction.op in (*_SAME_BYTES, 'get-tuple-element'):
        instruction = fused[instruction.operands[0]]
    return instruction
