"""Rematerialisation: what a layer keeps for its gradient and what the gradient computes again."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

# Names of the values that a layer may keep: queries, keys and values; the attention's output after
# its projection; and the results of the MLP's two products.
QKV, OUT, INNER, OUTER = 'qkv', 'out', 'inner', 'outer'

# With frozen weights a gradient needs no input of a product, only the inputs of what is not linear:
# attention, norms and GELU. 'products' keeps these; 'attention' computes the MLP's hidden layer
# again, which is almost as large as all others together.
POLICIES = {
    'everything': None,
    'products': jax.checkpoint_policies.save_only_these_names(QKV, OUT, INNER, OUTER),
    'attention': jax.checkpoint_policies.save_only_these_names(QKV, OUT, OUTER),
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


def cast_products(state: nnx.State, dtype: jnp.dtype) -> nnx.State:
    """Cast the kernels and biases of all linear layers to the dtype of the computation.

    A layer casts them itself, but if it is rematerialised then once more for the gradient.
    """
    flat = nnx.to_flat_state(state)
    linear = {path[:-1] for path, _ in flat if path[-1] == 'kernel'}
    return nnx.from_flat_state(
        (path, jax.tree.map(lambda x: x.astype(dtype), leaf) if path[:-1] in linear else leaf)
        for path, leaf in flat
    )
