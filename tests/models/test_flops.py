from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from amuse_jax.models import flops


def test_a_scan_counts_once_per_iteration():
    def run(x, weights):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x.T, lambda x: x[:, :4] * 2.0, x)

    jaxpr = jax.make_jaxpr(run)(jnp.ones((4, 8)), jnp.ones((5, 8, 8)))
    assert flops.count_matmul_flops(jaxpr.jaxpr) == 5 * 2 * 4 * 8 * 8 + 2 * 4 * 8 * 4


def test_sharded_work_counts_on_every_device_and_repeated_work_counts_once():
    mesh = jax.sharding.AbstractMesh((2, 3), ('data', 'tensor'))
    with jax.sharding.use_abstract_mesh(mesh):
        shared = jax.shard_map(
            lambda x, w: x @ w, mesh=mesh, in_specs=(P('data'), P()), out_specs=P('data'),
            check_vma=False,
        )  # fmt: skip
        jaxpr = jax.make_jaxpr(jax.jit(shared))(*(jax.ShapeDtypeStruct((8, 8), float),) * 2)
    assert flops.count_matmul_flops(jaxpr.jaxpr) == 2 * 8 * 8 * 8


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
def test_the_peak_is_found_by_the_name_of_the_device(kind, tera):
    found = flops.peak(SimpleNamespace(device_kind=kind))
    assert found == (tera and tera * 1e12)
