"""FLOPs of a program, and the peak FLOP/s of a device.

XLA's own count, `cost_analysis`, is not used because it counts the body of a loop once.
"""

import math
from typing import Any

import jax
from jax.extend import core

from amuse_jax.system import mkl

# Peak FLOP/s of dense bfloat16 matrix products, from the manufacturers' data sheets, by the
# `device_kind` that JAX reports.
PEAKS = {
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5': 459e12,
    'TPU v5p': 459e12,
    'TPU v6 lite': 918e12,
    'NVIDIA A100': 312e12,
    'NVIDIA H100': 989e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H200': 989e12,
    'NVIDIA B200': 2250e12,
}


def peak(device: jax.Device) -> float | None:
    """Return the device's peak FLOP/s, or None where PEAKS does not have it, as for every CPU."""
    kind = device.device_kind
    names = [name for name in PEAKS if kind == name or kind.startswith((f'{name} ', f'{name}-'))]
    return PEAKS[max(names, key=len)] if names else None


def count_matmul_flops(jaxpr: Any) -> int:
    """Return the FLOPs of a jaxpr's matrix products, summed over all devices.

    The body of a scan counts once per iteration. A Pallas kernel states its FLOPs in its metadata.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            left = equation.invars[0].aval.shape
            depth = math.prod(left[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
            continue
        if equation.primitive.name == 'pallas_call':
            total += int(equation.params['metadata']['product_flops'])
            continue
        if equation.primitive.name == 'ffi_call':
            transposed = mkl.TRANSPOSED[equation.params['target_name']]
            depth = equation.invars[0].aval.shape[not transposed[0]]
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
            continue
        inner = [count_matmul_flops(sub) for sub in core.jaxprs_in_params(equation.params)]
        total += _repetitions(equation) * (
            max(inner, default=0) if equation.primitive.name == 'cond' else sum(inner)
        )
    return total


def _repetitions(equation: Any) -> int:
    """Return how often the program inside the equation runs, over all devices."""
    if equation.primitive.name == 'scan':
        return equation.params['length']
    if equation.primitive.name == 'shard_map':
        # Count the devices along sharded axes only; along the others they repeat the same work.
        specs = jax.tree.leaves(equation.params['in_specs'])
        names = {name for spec in specs for name in jax.tree.leaves(tuple(spec))}
        return math.prod(equation.params['mesh'].shape[name] for name in names)
    return 1
