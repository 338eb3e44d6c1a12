"""The compiled training step and the compiled evaluation step."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from amuse_jax.models import building
from amuse_jax.training import sharding
from amuse_jax.training.state import Arrays, Structure, TrainState

# loss(model, batch, rngs) -> (mean loss of the batch, {metric: (2,) weighted total and weight})
Loss = Callable[[Any, Mapping[str, jax.Array], nnx.Rngs | None], tuple[jax.Array, Arrays]]
# evaluate(model, batch) -> ({metric: as above}, output)
Evaluation = Callable[[Any, Mapping[str, jax.Array]], tuple[Arrays, Any]]
TrainStep = Callable[..., tuple[TrainState, jax.Array]]


def train_step(
    loss: Loss,
    structure: Structure,
    optimizer: optax.GradientTransformation,
    optimization_level: int,
    shardings: TrainState,
    parts: int = 1,
) -> TrainStep:
    """Compile `step(state, frozen, batch, key) -> (state, is_finite)`.

    The step differentiates `state.params` only. If the loss or the gradient is not finite, the step
    changes only the counters. The random numbers of step n come from `fold_in(key, n)`, so a
    resumed run draws the same ones.

    Args:
      loss: see Loss. With several parts it must be the mean weighted by the metric 'loss'.
      structure: the model's structure.
      optimizer: updates `state.params`.
      optimization_level: see `building.compiler_options`.
      shardings: the shardings of the state, before and after the step. The state is donated: the
        caller must not use it again.
      parts: number of parts of a batch, computed one after the other with accumulated gradients, so
        that only one part needs memory; sharding.check_parts must accept it. The gradient is the
        same up to the order of its sums and the random numbers of dropout.
    """

    mesh = shardings.step.mesh

    @sharding.sharded_batches(mesh)
    def step(state, frozen, batch, key):
        step_key = jax.random.fold_in(key, state.step)

        def gradient(batch, key):
            def objective(params):
                model = structure.merge(sharding.gather_params(params | frozen, mesh))
                return loss(model, batch, nnx.Rngs(key))

            return jax.value_and_grad(objective, has_aux=True)(state.params)

        if parts == 1:
            (value, sums), grads = gradient(batch, step_key)
        else:
            (value, sums), grads = _accumulate_gradient(gradient, batch, step_key, parts, mesh)
        is_finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))

        def update(params, opt_state):
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        # One condition for the whole update lets parameters and moments change in place. A select
        # per element would read all of them again.
        params, opt_state = jax.lax.cond(
            is_finite, update, lambda *old: old, state.params, state.opt_state
        )
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
        compiler_options=building.compiler_options(optimization_level),
    )


def _accumulate_gradient(gradient, batch, key, parts, mesh):
    """Return what `gradient` returns for the whole batch, computed from `parts` of the batch."""

    def split(array):  # no video moves to another device
        array = array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)
        part = sharding.batch_sharding(mesh).spec
        spec = jax.sharding.PartitionSpec(None, *part)
        return jax.lax.with_sharding_constraint(array, jax.sharding.NamedSharding(mesh, spec))

    def add(total, scanned):
        part, number = scanned
        (value, sums), grads = gradient(part, jax.random.fold_in(key, number))
        weight = sums['loss'][1]
        weighted = jax.tree.map(lambda x: x * weight, (value, grads))
        return jax.tree.map(jnp.add, total, (*weighted, sums)), None

    scanned = jax.tree.map(split, dict(batch)), jnp.arange(parts)
    first = jax.tree.map(lambda x: x[0], scanned[0])
    (value, sums), grads = jax.eval_shape(gradient, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (value, grads, sums))
    (value, grads, sums), _ = jax.lax.scan(add, zeros, scanned)
    total_weight = jnp.maximum(sums['loss'][1], 1)
    value, grads = jax.tree.map(lambda x: x / total_weight, (value, grads))
    return (value, sums), grads


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
        compiler_options=building.compiler_options(optimization_level),
    )


def means(sums: Mapping[str, Any]) -> dict[str, float]:
    """Return the weighted mean of each metric; metrics with zero weight are left out."""
    return {name: float(total / weight) for name, (total, weight) in sums.items() if weight > 0}
