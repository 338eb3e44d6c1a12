"""The training state, its optimiser and learning-rate schedules, and the split of a model for jit.

A model is split into its structure and a flat dict of arrays under dotted names such as
`answer.attention.kernel`. A config selects trainable parameters by these names, a checkpoint stores
arrays under them, and the sharding table matches them. jit also dispatches a flat dict fastest.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from amuse_jax.errors import StageError
from amuse_jax.parsing import parse_trainable

Arrays = dict[str, jax.Array]

# Adam's first steps move every weight by the whole rate, however small its gradient is. A few dozen
# videos have so few batches that half an epoch of warm-up would not be even one step.
LEAST_WARMUP = 100


class Structure(NamedTuple):
    """The static, hashable parts of a model, without its arrays; a jitted function closes over it.

    Attributes:
      graphdef: the module's graph definition.
      treedef: the tree structure of the module's state.
      names: the dotted name of each leaf, in the order of the tree.
    """

    graphdef: Any
    treedef: Any
    names: tuple[str, ...]

    def merge(self, arrays: Mapping[str, jax.Array]) -> Any:
        """Return the model with these arrays; there must be one for every name."""
        leaves = [arrays[name] for name in self.names]
        return nnx.merge(self.graphdef, jax.tree.unflatten(self.treedef, leaves))


class TrainState(NamedTuple):
    """Everything that a step changes; all of it is donated to the step and saved in checkpoints.

    Attributes:
      step: () int32, steps since the start of training, including refused ones.
      params: trainable arrays by name.
      opt_state: the optimiser's state, for `params` only.
      sums: for each metric (2,) float32: weighted total and weight since the last log line.
      refused: () int32, steps refused because their loss or gradient was not finite.
    """

    step: jax.Array
    params: Arrays
    opt_state: Any
    sums: Arrays
    refused: jax.Array


def split(
    model: Any, trainable: str, setting: str = 'train.trainable'
) -> tuple[Structure, Arrays, Arrays]:
    """Split a model into its structure, its trainable parameters and its frozen arrays.

    Args:
      model: an NNX module, or an abstract one from nnx.eval_shape; then the arrays are shapes.
      trainable: see parsing.parse_trainable.
      setting: the name of the setting with this value, for messages.

    Returns:
      The structure, the trainable parameters, and all other arrays (frozen parameters and
      statistics).

    Raises:
      StageError: `trainable` is not a regular expression, or selects no parameter.
    """
    try:
        pattern = parse_trainable(trainable)
    except ValueError as error:
        raise StageError(f'{setting} is {error}') from error
    structure, arrays = flatten(model)
    arrays = {name: _copy_buffer(array) for name, array in arrays.items()}
    kinds = {
        '.'.join(map(str, path)): isinstance(variable, nnx.Param)
        for path, variable in nnx.to_flat_state(nnx.state(model))
    }
    chosen = {name for name in arrays if kinds[name] and pattern.search(name)}
    if not chosen:
        tops = sorted({name.partition('.')[0] for name in arrays})
        raise StageError(
            f'{setting} {trainable!r} selects no parameter; parameter names begin with '
            + ', '.join(tops)
        )
    frozen = {name: array for name, array in arrays.items() if name not in chosen}
    return structure, {name: x for name, x in arrays.items() if name in chosen}, frozen


def flatten(model: Any) -> tuple[Structure, Arrays]:
    """Return a model's structure and its arrays by name, without copying them."""
    graphdef, state = nnx.split(model)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    arrays = {_dotted_name(path): array for path, array in leaves}
    return Structure(graphdef, jax.tree.structure(state), tuple(arrays)), arrays


def adam(schedule: optax.Schedule, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """Return Adam (4.1) with this learning-rate schedule, or AdamW with this weight decay.

    Its state has the same structure for every schedule, so one template can restore a checkpoint of
    any phase.
    """
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(optax.scale_by_adam(), *decay, optax.scale_by_learning_rate(schedule))


def stepped_schedule(
    rate: float, steps_per_epoch: int, every: int, factor: float
) -> optax.Schedule:
    """Return a schedule that starts at `rate`, times `factor` after every `every` epochs."""
    return lambda step: rate * factor ** (step // (steps_per_epoch * every))


def warmup_steps(epochs: float, steps_per_epoch: int, steps: int) -> int:
    """Return the number of steps of a warm-up of so many epochs; 0 for none.

    A small data set has few steps in an epoch. The warm-up then takes LEAST_WARMUP steps, but at
    most half of all steps.

    Args:
      epochs: length of the warm-up.
      steps_per_epoch, steps: steps of an epoch, and of all epochs together.
    """
    if not epochs:
        return 0
    wanted = round(epochs * steps_per_epoch)
    return max(wanted, min(LEAST_WARMUP, steps // 2))


def warmed_up(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """Return a schedule that rises linearly to `schedule` over its first `steps` steps."""
    if not steps:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / (steps + 1))


def warmup_cosine_schedule(
    rate: float, steps: int, warmup: int, final_share: float
) -> optax.Schedule:
    """Return a schedule with linear warm-up and cosine decay.

    It rises to `rate` over `warmup` steps, then falls to `final_share * rate` at step `steps`.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=rate / (warmup + 1),
        peak_value=rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=rate * final_share,
    )


def init_state(
    params: Arrays,
    optimizer: optax.GradientTransformation,
    metrics: tuple[str, ...],
    step: int = 0,
    refused: int = 0,
) -> TrainState:
    """Return the state at the start of a phase, with a newly initialised optimiser."""
    return TrainState(
        step=jnp.int32(step),
        params=params,
        opt_state=jax.jit(optimizer.init)(params),
        sums=jax.tree.map(jnp.asarray, empty_sums(metrics)),
        refused=jnp.int32(refused),
    )


def empty_sums(metrics: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return a weighted total and a weight for each metric, (2,) float32, both zero."""
    return {name: np.zeros(2, np.float32) for name in metrics}


def _copy_buffer(array: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    """Copy an array so that it can be donated, without a weak type, on which jit would retrace."""
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(array.shape, array.dtype)
    return jnp.array(array, array.dtype, copy=True)


def _dotted_name(path: tuple) -> str:
    """Return the dotted name of a leaf, without the attribute that holds a variable's value."""
    return '.'.join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
