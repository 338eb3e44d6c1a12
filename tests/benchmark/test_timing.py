import sys
import time

import numpy as np
import pytest

from amuse_jax.benchmark import timing


def test_sides_take_turns_and_the_warmup_is_not_measured(monkeypatch):
    calls, clock = [], [0.0]
    monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])

    def side(name, seconds):
        def run():
            calls.append(name)
            # The first call is slow, as if it compiled.
            clock[0] += 100.0 if calls.count(name) == 1 else seconds

        return run

    times = timing.time_interleaved({'a': side('a', 1.0), 'b': side('b', 3.0)}, rounds=5, warmup=1)
    assert calls == ['a', 'b'] * 6
    assert times['a'].seconds == (1.0,) * 5 and times['b'].seconds == (3.0,) * 5


def test_median_and_spread():
    times = timing.Times((4.0, 1.0, 2.0, 3.0, 5.0))
    assert times.median == 3.0
    assert times.spread == pytest.approx((4 - 2) / 2 / 3)


def test_the_fastest_product_is_repeated_to_be_timed(monkeypatch):
    counts = []

    def counting(make):
        def make_counting(*args):
            multiply = make(*args)

            def run(count):
                counts.append(count)
                multiply(count)

            return run

        return make_counting

    for make in ('_jax_product', '_torch_product'):
        monkeypatch.setattr(timing, make, counting(getattr(timing, make)))
    monkeypatch.setattr(timing, 'PEAK_SHAPES', ((8, 8, 8), (256, 256, 256)))
    product = timing.fastest_product('float32', rounds=3)
    assert set(counts) == {1}
    assert product.name.endswith('256x256x256')  # the other one is mostly overhead
    product.run()
    assert counts[-1] == product.flops / (2 * 256**3)
    one = 2 * 256**3 / product.rates[product.name]  # seconds that one product was seen to take
    assert timing.PRODUCT_SECONDS <= counts[-1] * one * (1 + 1e-9)
    assert (counts[-1] - 1) * one < timing.PRODUCT_SECONDS
    assert set(product.rates) == {
        f'{library} {side}x{side}x{side}' for library in ('JAX', 'PyTorch') for side in (8, 256)
    }
    assert max(product.rates, key=product.rates.get) == product.name


def test_products_on_an_accelerator_wait_only_once(monkeypatch):
    counts = []
    for make in ('_jax_product', '_torch_product'):
        monkeypatch.setattr(timing, make, lambda *args: counts.append)
    monkeypatch.setattr(timing.jax, 'default_backend', lambda: 'gpu')
    product = timing.fastest_product('bfloat16', rounds=1)
    assert set(counts) == {timing.LARGE_CALLS}
    assert any(name.endswith('8192x8192x8192') for name in product.rates)
    product.run()
    assert counts[-1] > timing.LARGE_CALLS  # one wait for all of them


def test_an_unreadable_peak_is_none_but_the_run_and_its_errors_remain(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, 'PEAK_RESET', tmp_path / 'no' / 'such file')
    runs = []
    assert timing.peak_bytes(lambda: runs.append(1)) is None and runs == [1]
    with pytest.raises(FileNotFoundError):
        timing.peak_bytes((tmp_path / 'nothing').read_text)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs /proc')
def test_peak_memory_is_the_memory_that_a_run_adds():
    def run():
        for _ in range(2):  # freed and allocated again, so it counts once
            array = np.ones(64 << 20, np.uint8)
            del array

    assert 60 << 20 < timing.peak_bytes(run) < 90 << 20
    assert timing.peak_bytes(lambda: None) < 8 << 20
