"""Costs of a module in the text format of libtpu's compiler, shortened."""

from pathlib import Path

import pytest

from amuse_jax.benchmark import hlo_tpu

MODULE = Path(__file__).with_name('tpu_module.txt').read_text()
TOKENS = 4096 * 1024 * 2
WEIGHTS = 1024 * 1024 * 2


def test_a_loop_counts_as_often_as_it_runs():
    found = hlo_tpu.costs(MODULE)
    assert found.cycles == 7 * (1000 + 10)
    assert found.scopes == {
        'models/windows.py:40 attention, dot_general': 7000,
        'keep': 70,  # it has no stack
    }
    assert found.kernel_flops == {'attention': 123}


def test_collectives_are_counted_by_kind_with_their_padded_size():
    found = hlo_tpu.costs(MODULE)
    assert found.calls == {'all-reduce': 7, 'all-gather': 1}
    assert found.collectives == {'all-reduce': 7 * 256 * 4, 'all-gather': 16 * 128 * 4}


def test_slices_count_with_their_own_size_and_arrays_on_the_chip_do_not_count():
    """Tokens are read from memory once and stay on the chip in the loop; products are written."""
    product = WEIGHTS + TOKENS  # one of the seven weights is read, the result is written
    fetched = 2 * WEIGHTS  # two of the seven are copied onto the chip
    stored = WEIGHTS  # as many rows of the tokens are copied from the chip
    update = 2 * 128 * 4  # a row of 100 is padded to 128; it is read, and written in place
    reduced = 2 * 256 * 4
    gathered = 16 * 128 * 4 + 128 * 4  # one row is read
    kernel = 2 * TOKENS
    index = 128 * 4  # a scalar is padded to a row
    expected = (
        TOKENS + 7 * (product + fetched + stored + update + reduced + 2 * index) + gathered + kernel
    )
    assert hlo_tpu.costs(MODULE).hbm_bytes == pytest.approx(expected, rel=1e-3)


def test_the_branch_that_moves_the_most_counts():
    branches = """
%small (s: f32[250]) -> f32[250] {
  %s = f32[250]{0:T(256)} parameter(0)
  ROOT %kept = f32[250]{0:T(256)} copy(%s)
}

%large (t: f32[250]) -> f32[250] {
  %t = f32[250]{0:T(256)} parameter(0)
  %moved = f32[250]{0:T(256)} negate(%t)
  ROOT %changed = f32[250]{0:T(256)} negate(%moved)
}
"""
    call = (
        '  %given = f32[250]{0:T(256)} parameter(2)\n'
        '  %cond = f32[250]{0:T(256)} conditional(%start, %given, %given), '
        'true_computation=%small, false_computation=%large\n  ROOT %gather'
    )
    text = MODULE.replace('ENTRY', branches + '\nENTRY').replace('  ROOT %gather', call)
    added = hlo_tpu.costs(text).hbm_bytes - hlo_tpu.costs(MODULE).hbm_bytes
    assert added == 4 * 256 * 4  # two instructions that read and write a padded array


def test_memory_that_is_only_reserved_does_not_count():
    buffer = '%buffer = f32[4096]{0:T(1024)} custom-call(), custom_call_target="AllocateBuffer"'
    text = MODULE.replace('  ROOT %gather', f'  {buffer}\n  ROOT %gather')
    assert hlo_tpu.costs(text).hbm_bytes == hlo_tpu.costs(MODULE).hbm_bytes


def test_a_known_trip_count_is_used():
    text = MODULE.replace(
        'body=%body,', 'body=%body, backend_config={"known_trip_count":{"n":"3"}},'
    )
    assert hlo_tpu.costs(text).cycles == 3 * (1000 + 10)


def test_unreadable_text_is_an_error():
    with pytest.raises(ValueError, match='no ENTRY'):
        hlo_tpu.costs('')
    with pytest.raises(ValueError, match='one limit in the condition of while.1'):
        hlo_tpu.costs(MODULE.replace('constant(7)', 'parameter(1)'))


@pytest.mark.parametrize(
    'instruction, name',
    [
        ('attention.7', 'attention'),
        ('jvp_attention_.12', 'attention'),
        ('transpose_jvp_attention_gradient__.1', 'attention_gradient'),
        ('mlp', 'mlp'),
    ],
)
def test_names_of_kernels_without_what_jax_and_the_compiler_add(instruction, name):
    assert hlo_tpu.kernel_name(instruction) == name
