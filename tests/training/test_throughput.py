import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from amuse_jax.training import throughput


def test_the_wait_for_data_is_reported_per_step_and_as_a_share(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    clock = throughput.Throughput(Mesh(np.array(jax.devices()[:1]), ('data',)))
    clock.start_phase(step_flops=10**12)
    clock.count_step()  # compiles
    now[0] += 50.0
    clock.start_interval()
    for wait in (0.0, 0.25, 0.15, 0.0):
        clock.add_data_wait(wait)
        clock.count_step()
        now[0] += 2.0
    values = clock.values(samples=16, steps_left=3)
    assert set(values) <= set(throughput.CLOCK)
    assert values['step_seconds'] == pytest.approx(2.0)
    assert values['data_wait_seconds'] == pytest.approx(0.1)
    assert values['data_wait_share'] == pytest.approx(0.05)
    assert '2.000 s a step (0.100 s, 5.0% for data), 2.0 samples/s' in throughput.describe(values)
    clock.start_interval()
    clock.count_step()
    now[0] += 1.0
    assert clock.values(samples=1, steps_left=0)['data_wait_share'] == 0
