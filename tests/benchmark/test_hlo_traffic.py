"""Bytes and arrays that single instructions move, worked out by hand."""

import pytest

from amuse_jax.benchmark.hlo import Array, Module
from amuse_jax.benchmark.hlo_traffic import Traffic, is_kernel

ROW, STACK = 8 * 64, 7 * 8 * 64  # elements

# A computation for each fusion. The parameter of a slice or of an update stands behind a bitcast,
# as both compilers write it.
MODULE = """HloModule jit_f

%sliced (stack: f32[7,8,64], place: s32[]) -> bf16[8,64] {
  %stack = f32[7,8,64]{2,1,0SPACE} parameter(0)
  %flat = f32[7,512]{1,0} bitcast(%stack)
  %place = s32[] parameter(1)
  %zero = s32[] constant(0)
  %one = f32[1,512]{1,0} dynamic-slice(%flat, %place, %zero)
  %piece = f32[8,64]{1,0} bitcast(%one)
  ROOT %convert = bf16[8,64]{1,0} convert(%piece)
}

%inner (inside: f32[7,8,64], at: s32[]) -> f32[8,64] {
  %inside = f32[7,8,64]{2,1,0} parameter(0)
  %at = s32[] parameter(1)
  %nil = s32[] constant(0)
  %cut = f32[1,8,64]{2,1,0} dynamic-slice(%inside, %at, %nil, %nil)
  ROOT %shown = f32[8,64]{1,0} bitcast(%cut)
}

%nested (stack.1: f32[7,8,64], place.1: s32[]) -> f32[8,64] {
  %stack.1 = f32[7,8,64]{2,1,0} parameter(0)
  %place.1 = s32[] parameter(1)
  %sliced.1 = f32[8,64]{1,0} fusion(%stack.1, %place.1), kind=kLoop, calls=%inner
  ROOT %negated = f32[8,64]{1,0} negate(%sliced.1)
}

%same (whole: f32[7,8,64]) -> f32[7,512] {
  %whole = f32[7,8,64]{2,1,0} parameter(0)
  ROOT %rows.1 = f32[7,512]{1,0} bitcast(%whole)
}

%nested_bitcast (stack.2: f32[7,8,64]) -> f32[7,512] {
  %stack.2 = f32[7,8,64]{2,1,0} parameter(0)
  %same.1 = f32[7,512]{1,0} fusion(%stack.2), kind=kLoop, calls=%same
  ROOT %negated.1 = f32[7,512]{1,0} negate(%same.1)
}

%updated (kept: f32[7,8,64], new: f32[1,8,64], place.2: s32[]) -> (f32[7,8,64], f32[8,64]) {
  %kept = f32[7,8,64]{2,1,0} parameter(0)
  %new = f32[1,8,64]{2,1,0} parameter(1)
  %place.2 = s32[] parameter(2)
  %zero.2 = s32[] constant(0)
  %first = f32[7,8,64]{2,1,0} dynamic-update-slice(%kept, %new, %place.2, %zero.2, %zero.2)
  %second = f32[7,8,64]{2,1,0} dynamic-update-slice(%first, %new, %zero.2, %zero.2, %zero.2)
  %both = f32[8,64]{1,0} bitcast(%new)
  %sum = f32[8,64]{1,0} add(%both, %both)
  ROOT %results = (f32[7,8,64]{2,1,0}, f32[8,64]{1,0}) tuple(%second, %sum)
}

%update (kept.1: f32[7,8,64], new.1: f32[1,8,64], place.3: s32[]) -> f32[7,8,64] {
  %kept.1 = f32[7,8,64]{2,1,0} parameter(0)
  %new.1 = f32[1,8,64]{2,1,0} parameter(1)
  %place.3 = s32[] parameter(2)
  %zero.3 = s32[] constant(0)
  ROOT %in = f32[7,8,64]{2,1,0} dynamic-update-slice(%kept.1, %new.1, %place.3, %zero.3, %zero.3)
}

%nested_update (kept.2: f32[7,8,64], new.2: f32[1,8,64], place.4: s32[]) -> f32[7,8,64] {
  %kept.2 = f32[7,8,64]{2,1,0} parameter(0)
  %new.2 = f32[1,8,64]{2,1,0} parameter(1)
  %twice = f32[1,8,64]{2,1,0} add(%new.2, %new.2)
  %place.4 = s32[] parameter(2)
  ROOT %done = f32[7,8,64]{2,1,0} fusion(%kept.2, %twice, %place.4), kind=kLoop, calls=%update
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %total = f32[] add(%a, %b)
}

%scattered (table: f32[8,64], places: s32[100,1], rows: f32[100,64]) -> f32[8,64] {
  %table = f32[8,64]{1,0} parameter(0)
  %places = s32[100,1]{1,0} parameter(1)
  %rows = f32[100,64]{1,0} parameter(2)
  ROOT %scatter = f32[8,64]{1,0} scatter(%table, %places, %rows), to_apply=%add
}

ENTRY %main (p: f32[7,8,64], i: s32[], r: f32[1,8,64], n: s32[100,1]) -> bf16[8,64] {
  %p = f32[7,8,64]{2,1,0SPACE} parameter(0)
  %i = s32[] parameter(1)
  %r = f32[1,8,64]{2,1,0} parameter(2)
  %n = s32[100,1]{1,0} parameter(3)
  %g = f32[100,64]{1,0} parameter(4)
  %nested_slice = f32[8,64]{1,0} fusion(%p, %i), kind=kLoop, calls=%nested
  %nested_same = f32[7,512]{1,0} fusion(%p), kind=kLoop, calls=%nested_bitcast
  %shown_again = f32[7,512]{1,0} fusion(%p), kind=kLoop, calls=%same
  %updates = (f32[7,8,64]{2,1,0}, f32[8,64]{1,0}) fusion(%p, %r, %i), kind=kLoop, calls=%updated
  %nested_updates = f32[7,8,64]{2,1,0} fusion(%p, %r, %i), kind=kLoop, calls=%nested_update
  %outside = f32[7,8,64]{2,1,0SPACE} dynamic-update-slice(%p, %r, %i, %i, %i)
  %scatters = f32[8,64]{1,0} fusion(%nested_slice, %n, %g), kind=kLoop, calls=%scattered
  ROOT %slices = bf16[8,64]{1,0} fusion(%p, %i), kind=kLoop, calls=%sliced
}
"""


def moved(space='', chip_memory=False):
    """Return the bytes and the written arrays of every kernel, by name."""
    module = Module(MODULE.replace('SPACE', space))
    traffic, entry = Traffic(module, chip_memory), module.computations[module.entry]
    kernels = [instruction for instruction in entry.values() if is_kernel(instruction)]
    return {each.name: (traffic(each, entry), traffic.written(each, entry)) for each in kernels}


@pytest.fixture(scope='module')
def found():
    return moved()


def test_a_slice_behind_a_bitcast_reads_its_own_elements(found):
    assert found['slices'] == (4 * ROW + 4 + 2 * ROW, [Array('bf16', (8, 64), 2 * ROW)])


def test_a_slice_in_a_nested_fusion_reads_its_own_elements(found):
    assert found['nested_slice'][0] == 4 * ROW + 4 + 4 * ROW


@pytest.mark.parametrize('name', ['nested_same', 'shown_again'])
def test_an_array_behind_bitcasts_alone_is_read_whole(found, name):
    assert found[name][0] == 2 * 4 * STACK


def test_several_updates_of_one_array_write_their_parts(found):
    """The second update is of the result of the first, and neither reads the rest of the array."""
    size, arrays = found['updates']
    part = Array('f32', (1, 8, 64), 4 * ROW)
    assert arrays == [part, part, Array('f32', (8, 64), 4 * ROW)]
    assert size == 4 * ROW + 4 + 3 * 4 * ROW


def test_an_update_in_a_nested_fusion_writes_its_part(found):
    assert found['nested_updates'] == (
        4 * ROW + 4 + 4 * ROW,
        [Array('f32', (1, 8, 64), 4 * ROW)],
    )


def test_an_update_outside_a_fusion_reads_and_writes_its_part(found):
    assert found['outside'] == (2 * 4 * ROW, [Array('f32', (1, 8, 64), 4 * ROW)])


def test_a_scatter_reads_and_writes_every_row_that_it_adds(found):
    rows = 100 * 64
    assert found['scatters'] == (4 * 100 + 3 * 4 * rows, [Array('f32', (100, 64), 4 * rows)])


def test_arrays_in_a_chip_s_own_memory_move_nothing():
    on_chip, elsewhere = moved(':S(1)', chip_memory=True), moved(':S(1)')
    assert on_chip['slices'][0] == 4 + 2 * ROW
    assert on_chip['outside'] == (4 * ROW, [Array('f32', (1, 8, 64), 4 * ROW, space=1)])
    assert elsewhere['slices'][0] == 4 * ROW + 4 + 2 * ROW  # a GPU's other spaces are memory too
