import jax
import pytest
import torch

from amuse_jax.benchmark import rows


@pytest.mark.parametrize(
    ('dtype', 'jaxs', 'torchs', 'allows_tf32'),
    [('float32', 'highest', 'highest', False), ('bfloat16', 'default', 'high', True)],
)
def test_both_sides_multiply_float32_by_the_same_rule(dtype, jaxs, torchs, allows_tf32):
    def settings():
        ours = jax.config.jax_default_matmul_precision
        return ours, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = settings()
    with pytest.raises(ZeroDivisionError), rows.precision(dtype):
        assert settings() == (jaxs, torchs, allows_tf32)
        1 / 0  # noqa: B018  the settings come back after an error, too
    assert settings() == before
