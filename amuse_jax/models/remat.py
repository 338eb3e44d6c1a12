"""Rematerialisation: what a layer keeps for its gradient and what the gradient computes again."""

from collections.abc import Callable

import jax

# What a layer keeps: all intermediate values, the results of its matrix products with weights, or
# only its inputs.
POLICIES = {
    'everything': None,
    'products': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'inputs': jax.checkpoint_policies.nothing_saveable,
}


def rematerialise(layer: Callable, policy: str, in_scan: bool = True) -> Callable:
    """Return `layer` with a gradient that keeps only what `policy` names.

    Attention and elementwise operations are cheap to repeat and large to keep. So 'products' is
    both faster and smaller than 'everything' where the weights need no gradient.

    Args:
      layer: a function from arrays to arrays.
      policy: a key of POLICIES.
      in_scan: whether `layer` runs inside a scan. Outside a scan XLA would find that the second
        computation equals the first and would keep the first; JAX must then prevent that.
    """
    if policy == 'everything':
        return layer
    return jax.checkpoint(layer, policy=POLICIES[policy], prevent_cse=not in_scan)
