import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from amuse_jax.training import throughput


def test_the_wait_for_data_is_told_per_step_and_as_a_share(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    clock = throughput.Throughput(Mesh(np.array(jax.devices()[:1]), ('data',)))
    clock.enter(step_flops=10**12)
    clock.step()  # compiles
    now[0] += 50.0
    clock.restart()
    for wait in (0.0, 0.25, 0.15, 0.0):
        clock.waited(wait)
        clock.step()
        now[0] += 2.0
    values = clock.values(samples=16, steps_left=3)
    assert set(values) <= set(throughput.CLOCK)
    assert values['step_seconds'] == pytest.approx(2.0)
    assert values['data_wait_seconds'] == pytest.approx(0.1)
    assert values['data_wait_share'] == pytest.approx(0.05)
    assert '2.000 s a step (0.100 s, 5.0% for data), 2.0 samples/s' in throughput.described(values)
    clock.restart()
    clock.step()
    now[0] += 1.0
    assert clock.values(samples=1, steps_left=0)['data_wait_share'] == 0
