"""The training step compiled for TPUs that are not there; needs libtpu, but no TPU."""

import importlib.util
import math

import jax
import pytest
from ml_collections import ConfigDict

from amuse_jax.benchmark import compiling, tpu
from amuse_jax.stages import StageError
from amuse_jax.training import sharding
from configs import v1

HAS_LIBTPU = importlib.util.find_spec('libtpu') is not None
needs_libtpu = pytest.mark.skipif(
    not HAS_LIBTPU, reason="libtpu is not installed (pip install 'amuse_jax[tpu]')"
)


def test_a_topology_of_another_maker_is_refused():
    with pytest.raises(StageError, match='--topology=h100:8: expected v5e, v5p, v6e'):
        tpu.describe('h100:8')


@pytest.mark.skipif(HAS_LIBTPU, reason='libtpu is installed')
def test_without_libtpu_the_command_says_how_to_get_it():
    with pytest.raises(StageError, match='pip install'):
        tpu.describe('v5e:2x2')


def gradient_bytes(config: ConfigDict) -> int:
    """Of the parameters that train, as float32."""
    _, (state, *_) = compiling.abstract_step(config, sharding.single())
    return sum(4 * math.prod(array.shape) for array in state.params.values())


@needs_libtpu
def test_chips_exchange_gradients_alone_and_no_more_when_there_are_more(small):
    found = {}
    for topology, videos in (('v5e:2x2', 4), ('v5e:4x4', 16)):
        config = small.copy_and_resolve_references().unlock()
        config.model.dtype = 'bfloat16'
        config.train.batch_size = videos
        found[topology] = tpu.compile_step(config, topology)
    few, many = found.values()
    assert set(few.costs.collectives) == set(many.costs.collectives) == {'all-reduce'}
    exchanged = [sum(made.costs.collectives.values()) for made in (few, many)]
    assert exchanged[1] == pytest.approx(exchanged[0], rel=0.02)
    assert many.bytes < 1.1 * few.bytes  # a video per chip either way
    assert few.costs.kernel_flops == many.costs.kernel_flops > 0


@needs_libtpu
@pytest.mark.slow
def test_v1_fits_a_v5e_and_exchanges_its_gradients_once_per_part():
    """A quarter of an hour on two cores."""
    config = v1.get_config().unlock()
    config.train.update(batch_size=256, parts=4)
    config.loop.kept = 'inputs'
    made = tpu.compile_step(config, 'v5e:4x4')
    assert made.bytes < made.chip.memory
    assert set(made.costs.collectives) == {'all-reduce'}
    limit = config.train.parts * 1.2 * gradient_bytes(config)
    assert made.costs.collectives['all-reduce'] < limit
    assert made.utilisation > 0.2
    jax.clear_caches()
