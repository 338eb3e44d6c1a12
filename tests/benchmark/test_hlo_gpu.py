"""Kernels of a module in the text format of XLA's compiler for GPUs, worked out by hand."""

from pathlib import Path

import pytest

from amuse_jax.benchmark import hlo_gpu

MODULE = Path(__file__).with_name('gpu_module.txt').read_text()
TILE = 8 * 64  # elements of the loop's arrays


@pytest.fixture(scope='module')
def found():
    return hlo_gpu.costs(MODULE)


@pytest.fixture(scope='module')
def kernels(found):
    return {kernel.name: kernel for kernel in found.kernels}


def test_a_loop_counts_as_often_as_it_runs(found, kernels):
    inside = ['loop_slice', 'cublas.1', 'loop_gelu', 'scores', 'loop_update']
    outside = ['copy.1', 'all-reduce-start', 'all-gather-start', 'transpose.1', 'loop_fill']
    outside += ['narrow', 'cudnn', 'last']
    assert {name: kernel.times for name, kernel in kernels.items()} == (
        dict.fromkeys(inside, 7) | dict.fromkeys(outside, 1)
    )
    assert found.launches == 7 * 5 + 8


def test_slices_and_updates_in_place_count_what_they_move(kernels):
    # One of seven float32 tiles and its place are read, and a bfloat16 tile is written.
    assert kernels['loop_slice'].bytes == 4 * TILE + 4 + 2 * TILE
    # A bfloat16 tile and the place are read; one of seven float32 tiles is written.
    assert kernels['loop_update'].bytes == 2 * TILE + 4 + 4 * TILE
    # The updated array is made inside this fusion, so all of it is written.
    assert kernels['loop_fill'].bytes == 4 * 64 + 4 + 4 * TILE


def test_operands_and_results_count_once(kernels):
    assert kernels['loop_gelu'].bytes == 2 * TILE + (2 * TILE + 4 * 8)
    assert kernels['scores'].bytes == 2 * TILE + 4 * 8 * 8  # both operands are the same array
    assert kernels['copy.1'].bytes == 2 * 4 * 7 * TILE
    assert kernels['transpose.1'].bytes == 2 * 4 * 16 * 4


def test_scratch_memory_of_a_library_does_not_count(kernels):
    assert kernels['cublas.1'].bytes == 2 * (TILE + 64 * 32 + 8 * 32)
    results = 2 * 4 * 2 * 128 * 32 + 4 * 4 * 2 * 128
    assert kernels['cudnn'].bytes == 2 * 64 * 32 + results


def test_written_arrays_have_dtype_shape_and_scope(found):
    written = [(kernel.name, array.dtype, array.shape) for array, kernel in found.arrays()]
    assert ('loop_update', 'f32', (1, 8, 64)) in written  # of the seven, the one that is new
    assert ('cublas.1', 'bf16', (8, 32)) in written
    assert not [shape for name, dtype, shape in written if dtype in ('s8', 'u8')]  # scratch memory
    assert [shape for name, _, shape in written if name == 'all-gather-start'] == [(64, 4)]
    scopes = {kernel.scope for array, kernel in found.arrays() if array.shape == (8, 8)}
    assert scopes == {'models/windows.py:40 attention, dot_general'}


def test_flops_of_products(found, kernels):
    assert kernels['cublas.1'].flops == 2 * 8 * 64 * 32
    assert kernels['scores'].flops == 2 * 8 * 64 * 8
    assert kernels['last'].flops == 2 * 8 * 64 * 16
    # The channels are read from the shape of the queries: 32 here.
    assert kernels['cudnn'].flops == 2 * 2 * (4 * 2 * 128 * 96) * 32
    assert kernels['loop_gelu'].flops == 0
    outside = kernels['last'].flops + kernels['cudnn'].flops
    assert found.flops == 7 * (2 * 8 * 64 * 32 + 2 * 8 * 64 * 8) + outside


def test_the_gradient_of_cudnn_attention_has_five_products():
    text = MODULE.replace('__cudnn$fmhaSoftmax', '__cudnn$fmhaSoftmaxBackward')
    kernels = {kernel.name: kernel for kernel in hlo_gpu.costs(text).kernels}
    assert kernels['cudnn'].flops == 5 * 2 * (4 * 2 * 128 * 96) * 32


def test_our_own_kernels_state_their_flops():
    name = 'metadata={op_name="jit(step)/jvp(ours_123_flops)/pallas_call"}'
    text = MODULE.replace('__cudnn$fmhaSoftmax"', f'ours", {name}')
    kernels = {kernel.name: kernel for kernel in hlo_gpu.costs(text).kernels}
    assert kernels['cudnn'].flops == 123


def test_collectives_count_with_their_whole_arrays(found, kernels):
    assert found.calls == {'all-reduce': 1, 'all-gather': 1}
    assert found.collectives == {'all-reduce': 4 * 250, 'all-gather': 4 * 64 * 4}
    assert kernels['all-reduce-start'].bytes == 2 * 4 * 250
    assert kernels['all-gather-start'].bytes == 4 * 16 * 4 + 4 * 64 * 4


def test_kinds_follow_the_operation_and_the_source(found, kernels):
    assert {name: kernel.kind for name, kernel in kernels.items()} == {
        'loop_slice': hlo_gpu.STACKING,
        'loop_update': hlo_gpu.STACKING,
        'cublas.1': hlo_gpu.PRODUCTS,
        'loop_gelu': hlo_gpu.ELEMENTWISE,
        'scores': hlo_gpu.ATTENTION,
        'copy.1': hlo_gpu.COPIES,
        'all-reduce-start': hlo_gpu.COLLECTIVES,
        'all-gather-start': hlo_gpu.COLLECTIVES,
        'transpose.1': hlo_gpu.TRANSPOSES,
        'loop_fill': hlo_gpu.ELEMENTWISE,
        'narrow': hlo_gpu.ELEMENTWISE,
        'cudnn': hlo_gpu.ATTENTION,
        'last': hlo_gpu.PRODUCTS,
    }
    assert sum(found.bytes_by_kind().values()) == sum(k.times * k.bytes for k in kernels.values())


def test_scopes_name_the_line_in_this_package(kernels):
    assert kernels['scores'].scope == 'models/windows.py:40 attention, dot_general'
    assert kernels['cublas.1'].scope == 'models/windows.py:70 Block.__call__, dot_general'
    assert kernels['loop_gelu'].scope == 'models/gelu.py:60 gelu, mul, for the gradient'
    assert kernels['last'].scope == 'dot_general'  # no frame is in this package
    # The compiler added these.
    assert kernels['copy.1'].scope == 'copy of the result of parameter'
    assert kernels['loop_fill'].scope == 'fusion of the result of constant, transpose'


def test_the_branch_that_moves_the_most_counts():
    branches = """
%small (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  ROOT %kept = f32[8]{0} copy(%s)
}

%large (t: f32[8]) -> f32[8] {
  %t = f32[8]{0} parameter(0)
  %moved = f32[8]{0} negate(%t)
  ROOT %changed = f32[8]{0} add(%moved, %t)
}
"""
    call = """
  %cond.1 = f32[8]{0} conditional(%start, %g, %g), true_computation=%small, false_computation=%large
  ROOT %last"""
    text = MODULE.replace('ENTRY', branches + '\nENTRY').replace('\n  ROOT %last', call)
    names = [kernel.name for kernel in hlo_gpu.costs(text).kernels]
    assert {'moved', 'changed'} <= set(names) and 'kept' not in names
