import functools

import pytest
from jax.experimental import pallas

from amuse_jax.models import platform


@pytest.fixture
def interpreted(monkeypatch):
    """Take the kernels for GPUs, and run them in Pallas's interpreter."""
    call = functools.partial(pallas.pallas_call, interpret=True)
    monkeypatch.setattr(pallas, 'pallas_call', call)
    with platform.compiling_for('gpu'):
        yield
