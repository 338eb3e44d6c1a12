"""A training step on a GPU does what it does on the CPU of the same machine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.benchmark import compiling, hlo_gpu, inputs
from amuse_jax.models import platform
from amuse_jax.models.amuse import Amuse, AmuseConfig
from amuse_jax.training import sharding
from amuse_jax.training.train import answering
from tests.benchmark import tiny

# On a CPU the gradients of bfloat16 differ by 0.015 of their norm from those of float32.
TOLERANCES = {'float32': 1e-3, 'bfloat16': 0.05}


def run_step(device, target, dtype, policy):
    """Return loss and moments after a step on random frames and log-mels, and the compiled text."""
    config = tiny.get_config()
    config.model.dtype = dtype
    config.model.answer.dropout = 0.0
    config.loop.remat_policy = policy
    with jax.default_device(device), platform.compiling_for(target):
        model = Amuse(AmuseConfig.from_settings(config), inputs.random_phrases(), rngs=nnx.Rngs(0))
        mesh = sharding.mesh(dict.fromkeys(sharding.AXES, 1), [device])
        step = compiling.build_step(config, model, mesh)
        state = step.init_state(step.params)._replace(
            sums={name: jnp.zeros(2) for name in answering.METRICS}
        )
        batch = inputs.random_batch(config, 2, 2)
        arguments = jax.device_put((state, step.frozen, batch, jax.random.key(0)), device)
        compiled = step.run.lower(*arguments).compile()
        after, is_finite = compiled(*arguments)
    total, count = np.asarray(after.sums['loss'])
    assert is_finite
    return total / count, jax.device_get(after.opt_state[0].mu), compiled.as_text()


@pytest.mark.gpu
@pytest.mark.parametrize('policy', ['inputs', 'products'])
@pytest.mark.parametrize('dtype', TOLERANCES)
def test_a_step_has_the_loss_and_the_gradients_of_the_cpu(dtype, policy):
    """The gradients are in the first moments of Adam."""
    tolerance = TOLERANCES[dtype]
    expected_loss, expected, _ = run_step(jax.devices('cpu')[0], 'cpu', 'float32', policy)
    loss, found, text = run_step(jax.devices('gpu')[0], 'gpu', dtype, policy)
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    norm = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(expected)))
    difference = jax.tree.map(lambda x, y: np.square(x - y).sum(), found, expected)
    assert np.sqrt(sum(jax.tree.leaves(difference))) < tolerance * norm
    costs = hlo_gpu.costs(text)  # the estimate reads what the compiler writes where there is a GPU
    assert costs.launches > 100 and costs.flops > 1e6
