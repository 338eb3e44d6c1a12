from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from amuse_jax import flops


def test_a_scan_counts_as_often_as_it_runs():
    def run(x, weights):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x.T, lambda x: x[:, :4] * 2.0, x)

    jaxpr = jax.make_jaxpr(run)(jnp.ones((4, 8)), jnp.ones((5, 8, 8)))
    assert flops.of_products(jaxpr.jaxpr) == 5 * 2 * 4 * 8 * 8 + 2 * 4 * 8 * 4


@pytest.mark.parametrize(
    ('kind', 'tera'),
    [
        ('TPU v5 lite', 197),
        ('TPU v5', 459),
        ('NVIDIA H100 80GB HBM3', 989),
        ('NVIDIA H100 PCIe', 756),
        ('NVIDIA A100-SXM4-40GB', 312),
        ('cpu', None),
        ('NVIDIA A1000', None),
    ],
)
def test_peaks_by_the_name_of_the_device(kind, tera):
    found = flops.peak(SimpleNamespace(device_kind=kind))
    assert found == (tera and tera * 1e12)
