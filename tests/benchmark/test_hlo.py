"""Costs of a module, written down as libtpu's compiler prints it, shortened."""

import pytest

from amuse_jax.benchmark import hlo

MODULE = r"""HloModule jit_f, is_scheduled=true

%fused_slice (stack: bf16[7,1024,1024], place: s32[], x: bf16[4096,1024]) -> bf16[4096,1024] {
  %stack = bf16[7,1024,1024]{2,1,0:T(8,128)(2,1)} parameter(0)
  %place = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %one = bf16[1,1024,1024]{2,1,0:T(8,128)(2,1)} dynamic-slice(%stack, %place, %zero, %zero)
  %x = bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)} parameter(2)
  ROOT %product = bf16[4096,1024]{1,0:T(8,128)(2,1)} convolution(%x, %one), dim_labels=bf_io->bf
}

%fused_update (stack.1: f32[7,100], row: f32[1,100], place.1: s32[]) -> f32[7,100] {
  %stack.1 = f32[7,100]{1,0:T(8,128)} parameter(0)
  %row = f32[1,100]{1,0:T(1,128)} parameter(1)
  %place.1 = s32[]{:T(128)} parameter(2)
  ROOT %update = f32[7,100]{1,0:T(8,128)} dynamic-update-slice(%stack.1, %row, %place.1)
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%body (carried: (s32[], bf16[4096,1024])) -> (s32[], bf16[4096,1024]) {
  %carried = (s32[]{:T(128)}, bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carried), index=0
  %weights = bf16[7,1024,1024]{2,1,0:T(8,128)(2,1)} get-tuple-element(%carried), index=2
  %gradient = f32[250]{0:T(256)} get-tuple-element(%carried), index=3
  %kept = f32[7,100]{1,0:T(8,128)} get-tuple-element(%carried), index=4
  %last = f32[1,100]{1,0:T(1,128)S(1)} get-tuple-element(%carried), index=5
  %tokens = bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%carried), index=1
  %fusion.1 = bf16[4096,1024]{1,0:T(8,128)(2,1)} fusion(%weights, %i, %tokens), kind=kOutput, calls=%fused_slice, metadata={op_name="jit(f)/while/body/dot_general"}, backend_config={"window_config":{"estimated_cycles":"1000"}}
  %all-reduce.1 = f32[250]{0:T(256)} all-reduce(%gradient), replica_groups={}, to_apply=%add, metadata={op_name="sum"}, backend_config={}
  %fusion.2 = f32[7,100]{1,0:T(8,128)} fusion(%kept, %last, %i), kind=kLoop, calls=%fused_update, metadata={op_name="jit(f)/while/body/keep"}, backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %next = (s32[]{:T(128)}, bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)}) tuple(%i, %tokens)
}

%condition (carried.1: (s32[], bf16[4096,1024])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  %carried.1 = (s32[]{:T(128)}, bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%carried.1), index=0
  ROOT %goes-on = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (x.1: bf16[4096,1024]) -> bf16[4096,1024] {
  %x.1 = bf16[4096,1024]{1,0:T(8,128)(2,1)} parameter(0)
  %copy-start = (bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)}, bf16[4096,1024]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%x.1)
  %copy-done = bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %start = s32[]{:T(128)} constant(0)
  %share = f32[1,4]{1,0:T(1,128)} parameter(1)
  %tuple = (s32[]{:T(128)}, bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)}) tuple(%start, %copy-done)
  %while.1 = (s32[]{:T(128)}, bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)}) while(%tuple), condition=%condition, body=%body, metadata={op_name="jit(f)/while"}
  %kernel = bf16[4096,1024]{1,0:T(8,128)(2,1)} custom-call(%x.1), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"body":"","cost_estimate":{"flops":"123","transcendentals":"5"}}}
  ROOT %gather = f32[16,4]{1,0:T(8,128)} all-gather(%share), dimensions={0}
}
"""
TOKENS = 4096 * 1024 * 2
WEIGHTS = 1024 * 1024 * 2


def test_a_loop_counts_as_often_as_it_runs():
    found = hlo.costs(MODULE)
    assert found.cycles == 7 * (1000 + 10)
    assert found.scopes == {
        'jit(f)/while/body/dot_general': 7000,
        'jit(f)/while/body/keep': 70,
    }
    assert found.kernel_flops == 123


def test_collectives_are_told_by_kind_and_padded_size():
    found = hlo.costs(MODULE)
    assert found.calls == {'all-reduce': 7, 'all-gather': 1}
    assert found.collectives == {'all-reduce': 7 * 256 * 4, 'all-gather': 16 * 128 * 4}


def test_slices_count_as_slices_and_what_stays_on_the_chip_not_at_all():
    """Tokens come from memory once, and lie on the chip in the loop; its products are written."""
    product = WEIGHTS + TOKENS  # one of the seven weights is read, the result is written
    update = 2 * 128 * 4  # a row of 100 takes 128 places; it is read and put in its own
    reduced = 2 * 256 * 4
    gathered = 16 * 128 * 4 + 128 * 4  # one row is read
    kernel = 2 * TOKENS
    index = 128 * 4  # a number takes a row
    expected = TOKENS + 7 * (product + update + reduced + 2 * index) + gathered + kernel
    assert hlo.costs(MODULE).hbm_bytes == pytest.approx(expected, rel=1e-3)


def test_a_number_of_runs_that_the_module_says_is_taken():
    said = MODULE.replace(
        'body=%body,', 'body=%body, backend_config={"known_trip_count":{"n":"3"}},'
    )
    assert hlo.costs(said).cycles == 3 * (1000 + 10)


def test_what_cannot_be_read_is_an_error():
    with pytest.raises(ValueError, match='no ENTRY'):
        hlo.costs('')
    with pytest.raises(ValueError, match='one limit in the condition of while.1'):
        hlo.costs(MODULE.replace('constant(7)', 'parameter(1)'))
