"""What a gradient keeps of the forward pass, and what it computes again (rematerialisation)."""

from collections.abc import Callable

import jax

# What is kept of a layer: everything; the results of its products with weights; its input alone.
POLICIES = {
    'everything': None,
    'products': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'inputs': jax.checkpoint_policies.nothing_saveable,
}


def keeping(kept: str, layer: Callable, in_scan: bool = True) -> Callable:
    """`layer`, whose gradient keeps only `kept` of it.

    Attention and elementwise work are cheap to repeat and large to keep: 'products' is both quicker
    and smaller than 'everything' where weights need no gradient.

    Args:
      kept: one of POLICIES.
      layer: of arrays to arrays.
      in_scan: whether it runs inside a scan. Elsewhere the compiler must be kept from finding out
        that what is computed again is known.
    """
    if kept == 'everything':
        return layer
    return jax.checkpoint(layer, policy=POLICIES[kept], prevent_cse=not in_scan)
