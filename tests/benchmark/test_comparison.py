import jax
import numpy as np
import pytest
import torch

from amuse_jax.benchmark import comparison, timing
from amuse_jax.benchmark.comparison import Comparison, Side, Torch
from amuse_jax.errors import StageError

PRODUCT = timing.Product('a product', 100.0, lambda: None, {})


def side(*values, **options):
    """A side that finds one value per run, the last one again and again."""
    rest = list(values)

    def run():
        return {'loss': np.array(rest.pop(0) if len(rest) > 1 else rest[0])}

    return Side(run, held=1000, **options)


def row(sides, **options):
    made = Comparison('a step', comparison.WORK, samples=2, flops=50.0, sides=sides, **options)
    return comparison.measure(made, 'float32', rounds=3, product=PRODUCT)


def test_a_row_sets_every_side_beside_jax():
    found = row({'JAX': side(1.0, compile_seconds=9.0), 'PyTorch': side(1.0005)})
    assert found['work'] == 'a step' and found['compile_seconds'] == {'JAX': 9.0}
    seconds = found['seconds']
    assert found['times_faster'] == {'PyTorch': seconds['PyTorch'] / seconds['JAX']}
    assert found['samples_per_second']['PyTorch'] == 2 / seconds['PyTorch']
    assert found['flops_per_second'] == 50 / seconds['JAX']
    assert found['peak_bytes']['JAX'] >= 1000


def test_seconds_may_be_made_up_of_several_runs():
    found = row(
        {'JAX': side(1.0), 'JAX storing': side(1.0), 'PyTorch': side(1.0)},
        seconds=lambda each: {'JAX': 2.0, 'PyTorch': 3.0 if 'JAX storing' in each else 0.0},
        more=lambda medians: {'storing': medians['JAX storing']},
    )
    assert found['times_faster'] == {'PyTorch': 1.5} and found['storing'] > 0
    # Of what is told, not of one of its parts.
    assert found['spread'] == {'JAX': 0.0, 'PyTorch': 0.0}
    assert found['flops_per_second'] == found['flops'] / 2.0


def test_sides_that_differ_are_refused():
    message = 'a step: loss of JAX and of PyTorch differ by 2.0e-03 of the largest value'
    with pytest.raises(StageError, match=message):
        row({'JAX': side(1.002), 'PyTorch': side(1.0)})
    # A wrong gradient shows in the second step.
    with pytest.raises(StageError, match='differ by 5.0e-01'):
        row({'JAX': side(1.0, 0.5), 'PyTorch': side(1.0, 1.0)})
    with pytest.raises(StageError, match='of what is expected differ'):
        row({'JAX': side(1.0)}, expected={'loss': np.array(1.1)})
    with pytest.raises(StageError, match='differ by nan'):
        row({'JAX': side(1.0), 'PyTorch': side(np.nan)})


def test_compiled_variants_train_weights_of_their_own_and_share_frozen_ones():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].requires_grad_(False)
    plain, compiled = Torch('float32').variants(model, with_compile=True).values()
    frozen, trained = ([m.get_parameter(f'{i}.weight') for m in (plain, compiled._orig_mod)]
                       for i in (0, 1))  # fmt: skip
    assert frozen[0] is frozen[1]
    assert trained[0] is not trained[1] and torch.equal(*trained)
    both = comparison.torch_bytes(plain, compiled)
    assert both == 4 * (3 * 2 + 3 + 2 * (3 + 1))


@pytest.mark.parametrize('options', [None, {'xla_backend_optimization_level': 1}])
def test_a_program_knows_its_cost(options):
    product = jax.jit(lambda x: x @ x, compiler_options=options)  # as training steps have them
    program = comparison.compiled(product, np.ones((8, 8), np.float32))
    assert program.flops == 2 * 8**3 and program.seconds > 0 and program.held == 4 * 8**2
    np.testing.assert_array_equal(program.call(np.ones((8, 8), np.float32)), 8)


def test_inputs_that_a_program_does_not_use_are_not_held():
    given = np.ones((8, 8), np.float32), np.ones((1000, 1000), np.float32)
    assert comparison.compiled(lambda used, unused: used @ used, *given).held == 4 * 8**2
