"""Bytes that the instructions of a compiled module move to and from a device's memory.

A fusion reads each operand once, or the slices of it that it uses, and writes its results once, or
the parts that it updates in place.
"""

import dataclasses
import re

from amuse_jax.benchmark import hlo
from amuse_jax.benchmark.hlo import Array, Computation, Instruction, Module

# These instructions only name, move or group the results of others, or run other computations.
_NO_TRAFFIC = {
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id',
    'replica-id', 'while', 'conditional', 'call',
}  # fmt: skip
# Calls that libtpu's compiler adds. They reserve memory, or tell the compiler about an array.
_NO_TRAFFIC_TARGETS = re.compile(
    r'custom_call_target="(AllocateBuffer|ConcatBitcast|AssumeGatherIndicesInBound)"'
)
_SLICES = 'dynamic-slice', 'slice', 'gather'  # they read only a part of their first operand
# How often an update moves the elements that it changes, once they have been computed.
_UPDATES = {'dynamic-update-slice': 1, 'scatter': 2}  # a scatter adds to what it reads
_SCRATCH = re.compile(r'[su]8\[\d*\](\{0\})?(?=\)$)')  # the last result of a library's call


def is_kernel(instruction: Instruction) -> bool:
    """Return whether an instruction computes or moves anything."""
    if instruction.op.endswith('-done') or instruction.op in _NO_TRAFFIC:
        return False
    return not (instruction.op == 'custom-call' and _NO_TRAFFIC_TARGETS.search(instruction.rest))


class Traffic:
    """The bytes that instructions of a module move.

    Args:
      module: the module.
      chip_memory: whether arrays in memory spaces other than 0 are on the chip, as on TPUs; they
        move nothing.
    """

    def __init__(self, module: Module, chip_memory: bool):
        self._module, self._chip_memory = module, chip_memory

    def __call__(self, instruction: Instruction, computation: Computation) -> int:
        """Return the bytes that an instruction reads from memory and writes to it."""
        if not is_kernel(instruction):
            return 0
        op = instruction.base_op
        if op == 'fusion':
            fused = self._module.fused(instruction)
            parameters = [each for each in fused.values() if each.op == 'parameter']
            read = sum(self._read(each, fused) for each in parameters if self._is_stored(each))
            return read + self._moved(self.written(instruction, computation))
        written = self._moved(self.written(instruction, computation))
        if op in _SLICES:
            source = computation[instruction.operands[0]]
            return written + self._is_stored(source) * _result(instruction).bytes
        if op in _UPDATES:
            part = computation[_update(instruction)]
            return written * _UPDATES[op] + self._moved(hlo.arrays(part.shape))
        if hlo.lists_operands(instruction):
            return self._moved(hlo.arrays(instruction.shape))
        operands = dict.fromkeys(instruction.operands)
        read = (hlo.arrays(computation[name].shape) for name in operands if name in computation)
        return written + sum(map(self._moved, read))

    def written(self, instruction: Instruction, computation: Computation) -> list[Array]:
        """Return the arrays that a kernel writes; of an array updated in place, the new part.

        The scratch memory of a library is left out.
        """
        op = instruction.base_op
        if op == 'fusion':
            return self._written_by_fusion(instruction)
        if op in _SLICES:
            return [_result(instruction)]
        if op in _UPDATES:
            return _parts([computation[_update(instruction)]], _result(instruction))
        if hlo.lists_operands(instruction):
            operands = [hlo.arrays(computation[name].shape) for name in instruction.operands]
            return list(hlo.arrays(instruction.shape)[sum(map(len, operands)) :])
        shape = instruction.shape
        if op == 'custom-call' and shape.startswith('('):
            shape = _SCRATCH.sub('', shape)
        return list(hlo.arrays(shape))

    def _moved(self, arrays) -> int:
        return sum(array.bytes for array in arrays if not (self._chip_memory and array.space))

    def _is_stored(self, instruction: Instruction) -> bool:
        """Return whether the instruction's result is in memory, not on the chip."""
        return self._moved(hlo.arrays(instruction.shape)) > 0

    def _read(self, array: Instruction, fused: Computation) -> int:
        """Return the bytes read of a fusion's operand: all of it, or the slices that are used."""
        whole, total, added = _bytes(array), 0, 0
        if array is _root(fused):  # it is the result itself
            return whole
        for user in fused.values():
            if array.name not in user.operands:
                continue
            is_first = user.operands[0] == array.name
            if user.op in hlo.SAME_BYTES:
                total += self._read(user, fused)
            elif is_first and user.op in _SLICES:
                total += _bytes(user)
            elif user.op == 'fusion':
                inner = self._module.fused(user)
                places = [n for n, name in enumerate(user.operands) if name == array.name]
                parameters = [_parameter(inner, place) for place in places]
                if hlo.origin(_root(inner), inner) in parameters:  # the fusion is a bitcast
                    total += self._read(user, fused)
                else:
                    total += sum(self._read(each, inner) for each in parameters)
            elif is_first and user.op in _UPDATES and self._updated(user, fused):
                added += (_UPDATES[user.op] - 1) * _bytes(fused[_update(user)])
            else:
                return whole
        return min(whole, total) + added

    def _written_by_fusion(self, fusion: Instruction) -> list[Array]:
        fused = self._module.fused(fusion)
        root = _root(fused)
        results = [fused[name] for name in root.operands] if root.op == 'tuple' else [root]
        inside = [hlo.arrays(result.shape) for result in results]
        # The fusion's own shape says in which memory the results are.
        outside = [] if hlo.lists_operands(fusion) else list(hlo.arrays(fusion.shape))
        written = []
        for result, arrays in zip(results, inside):
            arrays = [outside.pop(0) if outside else array for array in arrays]
            _, updates = self._updated(result, fused) or (None, [])
            written += _parts(updates, arrays[0]) if updates else arrays
        return written

    def _updated(
        self, result: Instruction, fused: Computation
    ) -> tuple[Instruction, list[Instruction]] | None:
        """Return the operand that a result of a fusion updates in place, and the new parts.

        Returns:
          The parameter and the instructions that compute the parts; or None if the result is
          another array than the operand.
        """
        source = hlo.origin(result, fused)
        if source.op == 'parameter':
            return source, []
        if source.op in _UPDATES:
            earlier = self._updated(fused[source.operands[0]], fused)
            return earlier and (earlier[0], [*earlier[1], fused[_update(source)]])
        if source.op == 'fusion' and source.shape.startswith('('):
            return None
        if inner := self._module.fused(source):
            found = self._updated(_root(inner), inner)
            if found and found[1]:
                operand = fused[source.operands[int(found[0].arguments)]]
                earlier = self._updated(operand, fused)
                return earlier and (earlier[0], [*earlier[1], *found[1]])
        return None


def _root(fused: Computation) -> Instruction:
    """Return the instruction whose result is that of the computation."""
    return next(reversed(fused.values()))


def _bytes(instruction: Instruction) -> int:
    return sum(array.bytes for array in hlo.arrays(instruction.shape))


def _result(instruction: Instruction) -> Array:
    """Return the result of an instruction with one result and, if asynchronous, one operand."""
    return hlo.arrays(instruction.shape)[int(hlo.lists_operands(instruction))]


def _parts(updates: list[Instruction], target: Array) -> list[Array]:
    """Return the new parts of an array that is updated in place, in its memory space."""
    parts = (hlo.arrays(update.shape)[0] for update in updates)
    return [dataclasses.replace(part, space=target.space) for part in parts]


def _update(instruction: Instruction) -> str:
    """Return the name of the operand that holds the new elements."""
    return instruction.operands[1 if instruction.op == 'dynamic-update-slice' else -1]


def _parameter(fused: Computation, place: int) -> Instruction:
    parameters = (each for each in fused.values() if each.op == 'parameter')
    return next(each for each in parameters if each.arguments == str(place))
