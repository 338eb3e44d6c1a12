"""One training step and one evaluation step, compiled once each."""

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
    """Compiles `step(state, frozen, batch, key) -> (state, is_finite)`.

    The gradient is taken for `state.params` alone. A step whose loss or gradient is not finite
    changes nothing but the counters. Random numbers of step n come from `fold_in(key, n)`, so a
    resumed run draws the same.
    The state is donated: the caller must not use the one it passed. It comes back where it was, as
    `shardings` say. The optimisation level is that of `building.optimized`.

    With several `parts`, a batch's videos are taken in so many parts, one after the other: the
    gradient is the same, but for the order of its sums and what dropout draws, and a part's memory
    is all that is needed. `loss` is then the mean by the weights of the metric 'loss', and
    sharding.check_parts accepts the parts.
    """

    mesh = shardings.step.mesh

    @sharding.shared_out(mesh)
    def step(state, frozen, batch, key):
        step_key = jax.random.fold_in(key, state.step)

        def gradient(batch, key):
            def objective(params):
                model = structure.merge(sharding.gathered(params | frozen, mesh))
                return loss(model, batch, nnx.Rngs(key))

            return jax.value_and_grad(objective, has_aux=True)(state.params)

        if parts == 1:
            (value, sums), grads = gradient(batch, step_key)
        else:
            (value, sums), grads = _in_parts(gradient, batch, step_key, parts, mesh)
        is_finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))

        def update(params, opt_state):
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        # Chosen as a whole, parameters and moments change in place: a choice for each element would
        # read all of them again.
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
        compiler_options=building.optimized(optimization_level),
    )


def _in_parts(gradient, batch, key, parts, mesh):
    """What `gradient` returns for the whole batch, from `parts` of it."""

    def split(array):  # every device keeps its own videos
        array = array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)
        part = sharding.of_batches(mesh).spec
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
    whole = jnp.maximum(sums['loss'][1], 1)
    value, grads = jax.tree.map(lambda x: x / whole, (value, grads))
    return (value, sums), grads


def evaluation_step(
    evaluate: Evaluation, structure: Structure, optimization_level: int, mesh: Mesh
) -> Callable[..., Any]:
    """Compiles `step(params, frozen, batch, sums) -> (sums, output)`, which adds the batch to
    `sums`."""

    @sharding.shared_out(mesh)
    def step(params, frozen, batch, sums):
        model = structure.merge(sharding.gathered(params | frozen, mesh))
        new, output = evaluate(model, batch)
        return {name: sums[name] + new[name] for name in sums}, output

    return jax.jit(
        step,
        out_shardings=(sharding.whole(mesh), None),
        compiler_options=building.optimized(optimization_level),
    )


def means(sums: Mapping[str, Any]) -> dict[str, float]:
    """Weighted means of fetched sums; a metric that nothing was added to is left out."""
    return {name: float(total / weight) for name, (total, weight) in sums.items() if weight > 0}
