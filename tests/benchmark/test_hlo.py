"""Costs of a module, written down as libtpu's compiler prints it, shortened."""

from pathlib import Path

import pytest

from amuse_jax.benchmark import hlo

MODULE = Path(__file__).with_name('tpu_module.txt').read_text()
TOKENS = 4096 * 1024 * 2
WEIGHTS = 1024 * 1024 * 2


def test_a_loop_counts_as_often_as_it_runs():
    found = hlo.costs(MODULE)
    assert found.cycles == 7 * (1000 + 10)
    assert found.scopes == {
        'jit(f)/while/body/dot_general': 7000,
        'jit(f)/while/body/keep': 70,
    }
    assert found.kernel_flops == {'attention': 123}


def test_collectives_are_told_by_kind_and_padded_size():
    found = hlo.costs(MODULE)
    assert found.calls == {'all-reduce': 7, 'all-gather': 1}
    assert found.collectives == {'all-reduce': 7 * 256 * 4, 'all-gather': 16 * 128 * 4}


def test_slices_count_as_slices_and_what_stays_on_the_chip_not_at_all():
    """Tokens come from memory once, and lie on the chip in the loop; its products are written."""
    product = WEIGHTS + TOKENS  # one of the seven weights is read, the result is written
    fetched = 2 * WEIGHTS  # two of the seven, onto the chip
    stored = WEIGHTS  # as many rows of the tokens, from the chip
    update = 2 * 128 * 4  # a row of 100 takes 128 places; it is read and put in its own
    reduced = 2 * 256 * 4
    gathered = 16 * 128 * 4 + 128 * 4  # one row is read
    kernel = 2 * TOKENS
    index = 128 * 4  # a number takes a row
    expected = (
        TOKENS + 7 * (product + fetched + stored + update + reduced + 2 * index) + gathered + kernel
    )
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
