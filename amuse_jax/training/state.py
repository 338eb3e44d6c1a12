"""What a training step changes, and what it leaves alone.

A model is taken apart into its structure and a flat dict of arrays under dotted names such as
`answer.attention.kernel`. The names are what a config's pattern selects, what a checkpoint stores
and what a sharding table will match; a flat dict is also what jit dispatches fastest.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from amuse_jax.errors import StageError

Arrays = dict[str, jax.Array]


class Structure(NamedTuple):
    """A model without its arrays: static, hashable parts that jit closes over."""

    graphdef: Any
    treedef: Any
    names: tuple[str, ...]

    def merge(self, arrays: Mapping[str, jax.Array]) -> Any:
        """The model with these arrays, one for every name."""
        leaves = [arrays[name] for name in self.names]
        return nnx.merge(self.graphdef, jax.tree.unflatten(self.treedef, leaves))


class TrainState(NamedTuple):
    """Everything a step changes; all of it is checkpointed and donated.

    Attributes:
      step: () int32, steps since the start of training, refused ones included.
      params: trainable arrays by name.
      opt_state: the optimiser's, over `params` alone.
      sums: per metric (2,) float32: weighted total and weight since the last log line.
      refused: () int32, steps refused because their loss or gradient was not finite.
    """

    step: jax.Array
    params: Arrays
    opt_state: Any
    sums: Arrays
    refused: jax.Array


def split(model: Any, trainable: str) -> tuple[Structure, Arrays, Arrays]:
    """Takes a model apart.

    Args:
      model: an NNX module; or one of nnx.eval_shape, whose shapes then stand for arrays.
      trainable: a regular expression searched for in every parameter's dotted name.

    Returns:
      The structure, the trainable parameters, and every other array (frozen parameters,
      statistics).

    Raises:
      StageError: the expression is not one, or selects no parameter.
    """
    try:
        pattern = re.compile(trainable)
    except re.error as error:
        raise StageError(
            f'train.trainable is {trainable!r}, which is not a regular expression ({error}); '
            'expected one over parameter names, such as adapters|text|answer'
        ) from error
    graphdef, state = nnx.split(model)
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    arrays = dict(zip(names, map(_own, jax.tree.leaves(state))))
    kinds = {
        '.'.join(map(str, path)): isinstance(variable, nnx.Param)
        for path, variable in nnx.to_flat_state(state)
    }
    chosen = {name for name in names if kinds[name] and pattern.search(name)}
    if not chosen:
        tops = sorted({name.partition('.')[0] for name in names})
        raise StageError(
            f'train.trainable {trainable!r} selects no parameter; the names begin with '
            + ', '.join(tops)
        )
    structure = Structure(graphdef, jax.tree.structure(state), tuple(names))
    frozen = {name: array for name, array in arrays.items() if name not in chosen}
    return structure, {name: arrays[name] for name in names if name in chosen}, frozen


def adam(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam (4.1) whose state never depends on the schedule, so that phases can follow one
    another."""
    return optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(schedule))


def halving(rate: float, steps_per_epoch: int, every: int) -> optax.Schedule:
    """4.1: `rate`, multiplied by a half after every `every` epochs."""
    return lambda step: rate * 0.5 ** (step // (steps_per_epoch * every))


def warm_cosine(rate: float, steps: int, warmup: int, final_share: float) -> optax.Schedule:
    """Rises to `rate` over `warmup` steps, then falls along a cosine to `final_share * rate` at
    `steps`."""
    return optax.warmup_cosine_decay_schedule(
        init_value=rate / (warmup + 1),
        peak_value=rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=rate * final_share,
    )


def fresh(
    params: Arrays,
    optimizer: optax.GradientTransformation,
    metrics: tuple[str, ...],
    step: int = 0,
    refused: int = 0,
) -> TrainState:
    """The state at the start of a phase, with an optimiser that has seen nothing."""
    return TrainState(
        step=jnp.int32(step),
        params=params,
        opt_state=jax.jit(optimizer.init)(params),
        sums=jax.tree.map(jnp.asarray, empty_sums(metrics)),
        refused=jnp.int32(refused),
    )


def empty_sums(metrics: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Per metric a weighted total and a weight to add to."""
    return {name: np.zeros(2, np.float32) for name in metrics}


def _own(array: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    """A buffer of its own, which may be donated, and never of weak type, which jit would notice."""
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(array.shape, array.dtype)
    return jnp.array(array, array.dtype, copy=True)


def _name(path: tuple) -> str:
    """Dotted name of a leaf, without the attribute that holds a variable's value."""
    return '.'.join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
