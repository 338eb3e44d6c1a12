import numpy as np
from flax import nnx

from amuse_jax.models.data_norm import DataNorm


def test_the_norm_removes_the_datas_statistics():
    norm = DataNorm(4)
    log_mel = np.random.default_rng(0).normal(-40, 12, size=(50, 200, 4))
    norm.mean[...], norm.variance[...] = log_mel.mean((0, 1)), log_mel.var((0, 1))
    ours = norm(log_mel)
    np.testing.assert_allclose(ours.mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(ours.std((0, 1)), 1, atol=1e-4)


def test_the_statistics_are_no_parameters():
    norm = DataNorm(4)
    assert set(nnx.state(norm, nnx.Param)) == {'scale', 'bias'}
    assert set(nnx.state(norm, nnx.BatchStat)) == {'mean', 'variance'}
