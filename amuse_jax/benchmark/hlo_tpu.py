"""Costs of one run of a program compiled for TPUs, read from the text of its optimised module."""

import dataclasses
import re
from collections import Counter

from amuse_jax.benchmark.hlo import Module
from amuse_jax.benchmark.hlo_sources import Sources
from amuse_jax.benchmark.hlo_traffic import Traffic

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KERNEL = re.compile(r'"cost_estimate":\{"flops":"(\d+)"')


@dataclasses.dataclass
class Costs:
    """Costs of one run on one device.

    Attributes:
      cycles: cycles that the compiler estimates, without collectives and hand-written kernels.
      hbm_bytes: bytes read from and written to HBM, with the padding of the layouts. Arrays that
        the compiler placed in the chip's own memory do not count.
      collectives: bytes of the whole arrays, by kind of collective.
      calls: number of calls, by kind of collective.
      kernel_flops: FLOPs of hand-written kernels by name, from their own estimates.
      scopes: cycles by scope, such as 'models/gelu.py:19 gelu, mul, for the gradient'.
    """

    cycles: int
    hbm_bytes: int
    collectives: Counter[str]
    calls: Counter[str]
    kernel_flops: Counter[str]
    scopes: Counter[str]


def costs(text: str) -> Costs:
    """Return the costs of a module for TPUs.

    A loop counts as often as it runs. Of a conditional, the branch that moves the most counts.
    hlo_traffic.py says how bytes are counted.

    Args:
      text: the module's text, from `compiled.as_text()`.

    Raises:
      ValueError: a loop's trip count is unknown, or the text has no entry computation.
    """
    module, sources = Module(text), Sources(text)
    traffic = Traffic(module, chip_memory=True)
    total = Costs(0, 0, *module.count_collectives(traffic), Counter(), Counter())
    for instruction, times, computation in module.executed(traffic):
        if kernel := _KERNEL.search(instruction.rest):
            total.kernel_flops[kernel_name(instruction.name)] += times * int(kernel.group(1))
        elif cycles := _CYCLES.search(instruction.rest):
            total.cycles += times * int(cycles.group(1))
            scope = sources.scope(instruction, computation)
            total.scopes[scope] += times * int(cycles.group(1))
        total.hbm_bytes += times * traffic(instruction, computation)
    return total


def kernel_name(instruction: str) -> str:
    """Return a kernel's own name, 'mlp' for an instruction such as 'transpose_jvp_mlp__.3'.

    The compiler adds a number, and outside a scan JAX adds its transformations.
    """
    return re.sub(r'^(?:(?:transpose|jvp|vmap)_)+|_+$', '', instruction.split('.')[0])
