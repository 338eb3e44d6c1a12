"""How much arithmetic a program does, and how much a device could do."""

import math
from typing import Any

import jax
from jax.extend import core

# Dense bfloat16 products per second, as the makers' data sheets have them, by how JAX calls the
# device.
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
}


def peak(device: jax.Device) -> float | None:
    """What PEAKS says of the device; None: unknown, as of every CPU."""
    kind = device.device_kind
    names = [name for name in PEAKS if kind == name or kind.startswith((f'{name} ', f'{name}-'))]
    return PEAKS[max(names, key=len)] if names else None


def of_products(jaxpr: Any) -> int:
    """FLOPs of a jaxpr's matrix products, of all devices together; a scan's body counts as often as
    it runs. Kernels say theirs."""
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
        inner = [of_products(sub) for sub in core.jaxprs_in_params(equation.params)]
        total += _times(equation) * (
            max(inner, default=0) if equation.primitive.name == 'cond' else sum(inner)
        )
    return total


def _times(equation: Any) -> int:
    """How often the program inside is run."""
    if equation.primitive.name == 'scan':
        return equation.params['length']
    if equation.primitive.name == 'shard_map':  # devices that share nothing out only repeat
        specs = jax.tree.leaves(equation.params['in_specs'])
        names = {name for spec in specs for name in jax.tree.leaves(tuple(spec))}
        return math.prod(equation.params['mesh'].shape[name] for name in names)
    return 1
