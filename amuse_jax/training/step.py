"""The compiled training step and the compiled evaluation step.

In training, every device computes the gradient of its own videos, in as many parts as the batch
has. The devices then exchange their gradients once. XLA's partitioner would exchange them wherever
the batch is summed: inside the loop over the parts, and inside every scan over layers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from amuse_jax.models import building, platform
from amuse_jax.system import xla
from amuse_jax.training import shard_random, sharding
from amuse_jax.training.state import Arrays, Structure, TrainState

# loss(model, batch, rngs) -> (mean loss of the batch, {metric: (2,) weighted total and weight});
# the mean loss is the total of the metric 'loss' divided by its weight, or 0 if the weight is 0
Loss = Callable[[Any, Mapping[str, jax.Array], nnx.Rngs | None], tuple[jax.Array, Arrays]]
# evaluate(model, batch) -> ({metric: as above}, output)
Evaluation = Callable[[Any, Mapping[str, jax.Array]], tuple[Arrays, Any]]
TrainStep = Callable[..., tuple[TrainState, jax.Array]]

SMALL_ARRAY = 2**16  # elements


def train_step(
    loss: Loss,
    structure: Structure,
    optimizer: optax.GradientTransformation,
    optimization_level: int,
    shardings: TrainState,
    parts: int = 1,
    compares_videos: bool = False,
    clip_norm: float = 0.0,
) -> TrainStep:
    """Compile `step(state, frozen, batch, key) -> (state, is_finite)`.

    The step differentiates `state.params` only. If the loss or the gradient is not finite, the step
    changes only the counters. The random numbers of step n come from `fold_in(key, n)`, so a
    resumed run draws the same ones. They do not depend on the mesh if the leading axis of every
    random array counts videos.

    Args:
      loss: see Loss.
      structure: the model's structure.
      optimizer: updates `state.params`.
      optimization_level: see `building.compiler_options`.
      shardings: the shardings of the state, before and after the step. The state is donated: the
        caller must not use it again.
      parts: number of parts of a batch, computed one after the other with accumulated gradients, so
        that only one part needs memory; sharding.check_parts must accept it. The gradient is the
        same up to the order of its sums and the random numbers of dropout.
      compares_videos: whether the loss of one video depends on other videos of the batch. The
        partitioner then decides when gradients are exchanged, and `parts` must be 1.
      clip_norm: largest norm of the gradient of all parameters together; a larger gradient is
        scaled down to it. 0: no limit.

    Raises:
      ValueError: the loss compares videos, and there are several parts.
    """
    if compares_videos and parts > 1:
        raise ValueError(f'a loss that compares videos in {parts} parts; expected 1 part')
    mesh = shardings.step.mesh

    def gradient(shard, params, frozen, batch, key):
        """Return the metrics' sums and the gradient of the total loss of some videos."""
        own_key = shard_random.shard_key(key, shard)

        def objective(params):
            model = structure.merge(params | frozen)
            value, sums = loss(model, batch, nnx.Rngs(own_key))
            return value * sums['loss'][1], sums

        grads, sums = jax.grad(objective, has_aux=True)(params)
        return sums, grads

    def accumulated(shard, params, frozen, batch, key):
        def part_gradient(part, number):
            return gradient(shard, params, frozen, part, jax.random.fold_in(key, number))

        def add(total, scanned):
            return jax.tree.map(jnp.add, total, part_gradient(*scanned)), None

        scanned = jax.tree.map(functools.partial(_split, parts), dict(batch)), jnp.arange(parts)
        shapes = jax.eval_shape(part_gradient, *jax.tree.map(lambda x: x[0], scanned))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, scanned)[0]

    def checked(*arguments):
        # A device checks its own gradient: the sum of squares joins the one exchange.
        sums, grads = (gradient if parts == 1 else accumulated)(*arguments)
        return sums, grads, _squared_norm(grads, mesh)

    spread = sharding.on_whole_batch if compares_videos else sharding.sum_over_shards
    total_gradient = spread(checked, mesh)

    def step(state, frozen, batch, key):
        params, frozen = (sharding.gather_params(x, mesh) for x in (state.params, frozen))
        step_key = jax.random.fold_in(key, state.step)
        sums, grads, squares = total_gradient(params, frozen, batch, step_key)
        total, weight = sums['loss']
        is_finite = jnp.isfinite(total) & jnp.isfinite(squares)
        factor = 1 / jnp.maximum(weight, 1)
        if clip_norm:
            # Several devices have added up the squares of their own gradients, not of the sum.
            norm = factor * jnp.sqrt(squares if mesh.size == 1 else _squared_norm(grads, mesh))
            factor *= clip_norm / jnp.maximum(norm, clip_norm)
        grads = jax.tree.map(lambda x: x * factor, grads)

        def update(params, opt_state):
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        params, opt_state = _apply_if(is_finite, update, state.params, state.opt_state)
        state = TrainState(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            sums={n: state.sums[n] + jnp.where(is_finite, sums[n], 0) for n in state.sums},
            refused=state.refused + ~is_finite,
        )
        return state, is_finite

    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, shardings.step),
        compiler_options=compiler_options(optimization_level, mesh),
    )


def _squared_norm(grads: Arrays, mesh: Mesh) -> jax.Array:
    """Return the sum of squares of all arrays.

    Small arrays are joined, so that one kernel serves all of them, unless devices divide them.
    """
    arrays, limit = list(grads.values()), SMALL_ARRAY if mesh.shape['tensor'] == 1 else 0
    small = [x.ravel() for x in arrays if x.size < limit]
    large = [x for x in arrays if x.size >= limit]
    return optax.tree.norm([*large, *([jnp.concatenate(small)] if small else [])], squared=True)


def _apply_if(condition: jax.Array, update: Callable[..., Any], *old: Any) -> Any:
    """Return `update(*old)` if the condition holds, otherwise `old`.

    A select per element is fused with the update of the element, which reads the old value anyway.
    A conditional would copy every array on GPUs: 600 kernels more in a step. On CPUs a conditional
    changes the arrays in place, and takes a third of the time of the select.
    """
    if platform.current() == 'cpu':
        return jax.lax.cond(condition, update, lambda *old: old, *old)
    return jax.tree.map(lambda *each: jnp.where(condition, *each), update(*old), old)


def _split(parts: int, array: jax.Array) -> jax.Array:
    """Split the videos of an array: (videos, ...) -> (parts, videos / parts, ...).

    Neighbouring videos go to different parts. The parts of a batch are then the same however many
    devices share it.
    """
    return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)


def evaluation_step(
    evaluate: Evaluation, structure: Structure, optimization_level: int, mesh: Mesh
) -> Callable[..., Any]:
    """Compile `step(params, frozen, batch, sums) -> (sums, output)`.

    The step adds the metrics of the batch to `sums`.
    """

    @sharding.sharded_batches(mesh)
    def step(params, frozen, batch, sums):
        model = structure.merge(sharding.gather_params(params | frozen, mesh))
        new, output = evaluate(model, batch)
        return {name: sums[name] + new[name] for name in sums}, output

    return jax.jit(
        step,
        out_shardings=(sharding.replicated(mesh), None),
        compiler_options=compiler_options(optimization_level, mesh),
    )


def compiler_options(level: int, mesh: Mesh) -> dict[str, Any] | None:
    """Return the options of jax.jit for a program on the mesh.

    Args:
      level: see `building.compiler_options`.
      mesh: the device mesh.
    """
    if platform.current() == 'gpu':
        return xla.gpu_options(mesh.size)
    return building.compiler_options(level)


def means(sums: Mapping[str, Any]) -> dict[str, float]:
    """Return the weighted mean of each metric; metrics with zero weight are left out."""
    return {name: float(total / weight) for name, (total, weight) in sums.items() if weight > 0}
