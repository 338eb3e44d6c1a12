import jax
import numpy as np
import pytest
import torch

from amuse_jax.benchmark import comparison, timing
from amuse_jax.benchmark.comparison import Comparison, Side, Torch
from amuse_jax.benchmark.reference import towers
from amuse_jax.errors import StageError

PRODUCT = timing.Product('a product', 100.0, lambda: None, {})


def side(*values, **options):
    """Return a side whose runs return these values in turn, and then always the last one."""
    remaining = list(values)

    def run():
        return {'loss': np.array(remaining.pop(0) if len(remaining) > 1 else remaining[0])}

    return Side(run, held_bytes=1000, **options)


def measure(sides, **options):
    """Return the figures of a row with these sides."""
    row = Comparison('a step', comparison.WORK, samples=2, flops=50.0, sides=sides, **options)
    return comparison.measure(row, 'float32', rounds=3, product=PRODUCT)


def test_a_row_compares_every_side_with_jax():
    found = measure({'JAX': side(1.0, compile_seconds=9.0), 'PyTorch': side(1.0005)})
    assert found['work'] == 'a step' and found['compile_seconds'] == {'JAX': 9.0}
    seconds = found['seconds']
    assert found['times_faster'] == {'PyTorch': seconds['PyTorch'] / seconds['JAX']}
    assert found['samples_per_second']['PyTorch'] == 2 / seconds['PyTorch']
    assert found['flops_per_second'] == 50 / seconds['JAX']
    assert found['peak_bytes']['JAX'] >= 1000


def test_seconds_may_combine_several_runs():
    found = measure(
        {'JAX': side(1.0), 'JAX storing': side(1.0), 'PyTorch': side(1.0)},
        seconds=lambda each: {'JAX': 2.0, 'PyTorch': 3.0 if 'JAX storing' in each else 0.0},
        extra=lambda medians: {'storing': medians['JAX storing']},
    )
    assert found['times_faster'] == {'PyTorch': 1.5} and found['storing'] > 0
    # The spread is that of the combined seconds, not that of a part.
    assert found['spread'] == {'JAX': 0.0, 'PyTorch': 0.0}
    assert found['flops_per_second'] == found['flops'] / 2.0


def test_sides_that_differ_are_refused():
    message = 'a step: loss of JAX and of PyTorch differ by 2.0e-03 of the largest value'
    with pytest.raises(StageError, match=message):
        measure({'JAX': side(1.002), 'PyTorch': side(1.0)})
    # A wrong gradient shows in the second step.
    with pytest.raises(StageError, match='differ by 5.0e-01'):
        measure({'JAX': side(1.0, 0.5), 'PyTorch': side(1.0, 1.0)})
    with pytest.raises(StageError, match='of the expected values differ'):
        measure({'JAX': side(1.0)}, expected={'loss': np.array(1.1)})
    with pytest.raises(StageError, match='differ by nan'):
        measure({'JAX': side(1.0), 'PyTorch': side(np.nan)})


def test_compiled_variants_have_own_trainable_weights_and_share_frozen_ones():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].requires_grad_(False)
    variants = Torch('float32').variants(model, comparison.WORK, with_compile=True)
    assert variants.keys() == {'PyTorch', 'torch.compile'}  # there is no attention to fuse
    plain, compiled = variants.values()
    frozen, trained = ([m.get_parameter(f'{i}.weight') for m in (plain, compiled._orig_mod)]
                       for i in (0, 1))  # fmt: skip
    assert frozen[0] is frozen[1]
    assert trained[0] is not trained[1] and torch.equal(*trained)
    both = comparison.torch_bytes(plain, compiled)
    assert both == 4 * (3 * 2 + 3 + 2 * (3 + 1))


def test_sides_of_the_same_result_store_what_frozen_weights_decide(small):
    model = towers.build(small, 'visual').requires_grad_(False)
    stored = {
        kind: {
            name: {
                m.stored_bias is not None for m in variant.modules() if hasattr(m, 'stored_bias')
            }
            for name, variant in Torch('float32').variants(model, kind, with_compile=True).items()
        }
        for kind in (comparison.WORK, comparison.RESULT)
    }
    assert stored[comparison.WORK] == {
        'PyTorch': set(), 'PyTorch SDPA': {False}, 'torch.compile': {False},
    }  # fmt: skip
    assert stored[comparison.RESULT] == {'PyTorch SDPA': {True}, 'torch.compile': {True}}


def test_cuda_graphs_are_for_gpus():
    assert comparison.compile_mode('cuda') == 'reduce-overhead'
    assert comparison.compile_mode('cpu') is None


@pytest.mark.parametrize('options', [None, {'xla_backend_optimization_level': 1}])
def test_a_program_reports_its_cost(options):
    product = jax.jit(lambda x: x @ x, compiler_options=options)  # training steps have such options
    program = comparison.compile_program(product, np.ones((8, 8), np.float32))
    assert program.flops == 2 * 8**3 and program.seconds > 0 and program.held_bytes == 4 * 8**2
    np.testing.assert_array_equal(program.call(np.ones((8, 8), np.float32)), 8)


def test_unused_inputs_of_a_program_are_not_counted():
    arrays = np.ones((8, 8), np.float32), np.ones((1000, 1000), np.float32)
    assert (
        comparison.compile_program(lambda used, unused: used @ used, *arrays).held_bytes == 4 * 8**2
    )
