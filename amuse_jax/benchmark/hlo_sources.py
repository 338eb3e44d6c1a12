"""Where in the source code the instructions of a compiled module come from."""

import re

from amuse_jax.benchmark import hlo
from amuse_jax.benchmark.hlo import Computation, Instruction

HELPERS = ('amuse_jax/models/dense.py',)  # products belong to the layer that asks for them


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

    def stack(self, instruction: Instruction) -> list[tuple[str, str, int]]:
        """Return file, function and line of the instruction's frames, innermost first.

        Frames in HELPERS are left out.
        """
        found = re.search(r'stack_frame_id=(\d+)', instruction.rest)
        frame, stack = int(found.group(1)) if found else 0, []
        while frame in self._frames:
            place, frame = self._frames[frame]
            if not place[0].endswith(HELPERS):
                stack.append(place)
        return stack

    def scope(self, instruction: Instruction, computation: Computation) -> str:
        """Return the line of this package that the instruction comes from, and its operation.

        An instruction that the compiler added, such as a copy, is named after what it reads.
        """
        name = instruction.source_op
        if not name:
            sources = (hlo.origin(computation[n], computation) for n in instruction.operands)
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


def _table(text: str, name: str) -> str:
    """Return a table that stands behind or in front of the module's computations."""
    found = re.search(rf'^{name}\n((?:\d+ .*\n?)*)', text, re.MULTILINE)
    return found.group(1) if found else ''
