import time

import pytest

from amuse_jax.benchmark import timing


def test_sides_take_turns_and_warm_up_unmeasured():
    calls = []

    def side(name, seconds):
        def run():
            calls.append(name)
            # The first call stands for compiling.
            time.sleep(0.2 if calls.count(name) == 1 else seconds)

        return run

    times = timing.in_turns({'a': side('a', 0.01), 'b': side('b', 0.03)}, rounds=5, warmup=1)
    assert calls == ['a', 'b'] * 6
    assert len(times['a'].seconds) == 5 and max(times['a'].seconds) < 0.2
    assert times['a'].median < times['b'].median


def test_median_and_spread():
    times = timing.Times((4.0, 1.0, 2.0, 3.0, 5.0))
    assert times.median == 3.0
    assert times.spread == pytest.approx((4 - 2) / 2 / 3)


def test_the_peak_is_a_rate_of_products(monkeypatch):
    monkeypatch.setattr(timing, 'PEAK_SHAPES', ((64, 64, 64), (256, 256, 256)))
    assert 1e6 < timing.product_peak('float32', rounds=3) < 1e16
