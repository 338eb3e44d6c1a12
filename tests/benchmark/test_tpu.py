"""The training step compiled for described TPUs, at small size; needs libtpu, but no TPU."""

import importlib.util

import pytest

from amuse_jax.benchmark import tpu
from amuse_jax.stages import StageError

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None,
    reason="libtpu is not installed (pip install 'amuse_jax[tpu]')",
)


def test_a_topology_of_another_maker_is_refused():
    with pytest.raises(StageError, match='--topology=h100:8: expected v5e, v5p, v6e'):
        tpu.describe('h100:8')


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is not None, reason='libtpu is installed')
def test_without_libtpu_the_command_says_how_to_get_it():
    with pytest.raises(StageError, match='pip install'):
        tpu.describe('v5e:2x2')
