"""The training step compiled for TPUs that are not there, which needs libtpu but no TPU; and for
four virtual processors, which needs neither."""

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from amuse_jax.benchmark import compiling, hlo, tpu
from amuse_jax.errors import StageError
from amuse_jax.models.summary import BERT_WORDS
from amuse_jax.training import sharding
from configs import v1
from tests.paths import ROOT

CHIPS = 4  # of mesh_costs.py

HAS_LIBTPU = importlib.util.find_spec('libtpu') is not None
needs_libtpu = pytest.mark.skipif(
    not HAS_LIBTPU, reason="libtpu is not installed (pip install '.[tpu]')"
)


def test_a_topology_of_another_maker_is_refused():
    with pytest.raises(StageError, match='--topology=h100:8: expected v5e, v5p, v6e'):
        tpu.describe('h100:8')


@pytest.mark.skipif(HAS_LIBTPU, reason='libtpu is installed')
def test_without_libtpu_the_command_says_how_to_get_it():
    with pytest.raises(StageError, match='pip install'):
        tpu.describe('v5e:2x2')


def test_a_config_is_fitted_to_the_chips_but_for_what_is_given():
    config = v1.get_config().lock()

    def sizes(given, shares):
        made = tpu.fitted(config, given, shares)
        return made.train.batch_size, made.train.parts, made.loop.kept

    assert sizes((), 16) == (256, 4, 'inputs')  # four videos at a time on each
    assert sizes((), 256) == (256, 1, 'inputs')
    assert sizes(('train.batch_size',), 16) == (8, 1, 'inputs')
    assert sizes(('train.parts', 'loop.kept'), 16) == (256, 1, 'products')
    assert config.train.batch_size == 8


def test_a_batch_that_the_chips_cannot_share_is_refused(small):
    mesh = AbstractMesh((CHIPS, 1, 1), sharding.AXES)
    config = small.copy_and_resolve_references().unlock()
    config.train.batch_size = 6
    with pytest.raises(StageError, match='6 videos, which 4 devices .* a multiple of 4'):
        compiling.abstract_step(config, mesh)


@pytest.fixture
def made(small):
    """A step of a second: 0.3 s of operations, 0.6 s of kernels, 0.1 s of links."""
    chip, config = tpu.CHIPS['v5e'], tpu.fitted(small, (), 16)
    half = 0.3 * chip.flops
    costs = hlo.Costs(
        cycles=round(0.3 * chip.clock),
        hbm_bytes=round(0.2 * chip.bandwidth),
        collectives=Counter({'all-reduce': round(0.1 * chip.links * 16 / 15 / 2)}),
        calls=Counter({'all-reduce': 4}),
        kernel_flops=Counter({'attention': 0.5 * half, 'attention_gradient': 0.3 * half}),
        scopes=Counter({'a product': 7}),
    )
    useful = 0.25 * 16 * chip.flops
    memory = {'arguments': 10**9, 'temporaries': 2 * 10**9}
    return tpu.Compiled('v5e:4x4', config, 16, 4, 1.6 * useful, useful, 60.0, memory, costs)


def test_each_kernel_is_charged_its_own_share_of_the_matrix_unit(made):
    seconds = made.seconds()
    assert seconds['kernels'] == pytest.approx(0.6)
    assert made.step_seconds == pytest.approx(1.0)
    assert made.utilisation == pytest.approx(0.25)


def test_the_slowest_of_products_memory_and_links_bounds_the_utilisation(made):
    # Products take 1.6 * 0.25 s at the peak, 0.2 s the memory and 0.1 s the links.
    assert made.bound == pytest.approx(0.25 / 0.4)
    costs = dataclasses.replace(made.costs, hbm_bytes=round(0.5 * made.chip.bandwidth))
    assert dataclasses.replace(made, costs=costs).bound == pytest.approx(0.25 / 0.5)


def test_a_training_is_told_by_the_steps_estimate(made):
    training, config = made.training(), made.config
    steps = config.train.epochs * tpu.VIDEOS / 256
    assert training['steps'] == steps and training['hours'] == pytest.approx(steps / 3600)
    width = 4 * config.model.visual.width  # of 8x8 patches of 64 pixels, halved twice to 4x4
    tokens = config.data.segments * 2 * 16 * width * 4
    assert training['read_per_host'] == pytest.approx(256 * tokens / 4)
    text = ' '.join(tpu.told(made).split())
    assert 'seconds per step, estimated 1.0000 utilisation, estimated 25.0%' in text
    assert f'{training["hours"]:.2f} hours, {steps:.0f} steps' in text


def test_figures_of_other_topologies_and_settings_stay(made, tmp_path):
    path = tmp_path / 'tpu.json'
    run = {'settings': made.settings(), 'step_seconds': 1.0}
    other = run | {'settings': run['settings'] | {'parts': 2}}
    for each in (run, other, run | {'step_seconds': 2.0}):
        tpu.keep(path, each)
    found = json.loads(path.read_text())['runs']
    assert [(each['settings']['parts'], each['step_seconds']) for each in found] == [
        (2, 1.0),
        (4, 2.0),
    ]


def test_processors_exchange_gradients_alone_once_per_part_in_bounded_memory():
    """Bounds as measured with jax 0.10.2, and a tenth more; a minute on one core."""
    parts, flag = 2, f'--xla_force_host_platform_device_count={CHIPS}'
    environment = {
        **os.environ,
        'PYTHONPATH': str(ROOT),
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} {flag}',
    }
    command = [sys.executable, Path(__file__).with_name('mesh_costs.py'), str(parts)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found['collectives'].keys() == {'all-reduce'}
    assert found['calls']['all-reduce'] <= 2 * parts
    # Questions and the names of answers are read from the same table of words.
    words = 4 * BERT_WORDS * 16
    exchanged = found['collectives']['all-reduce'] / parts
    assert found['gradients'] <= exchanged < 1.03 * (found['gradients'] + words)
    assert found['arguments'] < 1.1 * 7.07e6
    assert found['temporaries'] < 1.1 * 10.4e6


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
        given = ('train.batch_size', 'train.parts', 'loop.kept')
        found[topology] = tpu.compile_step(
            tpu.fitted(config, given, tpu.shares(config, topology)), topology
        )
    few, many = found.values()
    assert set(few.costs.collectives) == set(many.costs.collectives) == {'all-reduce'}
    exchanged = [sum(made.costs.collectives.values()) for made in (few, many)]
    assert exchanged[1] == pytest.approx(exchanged[0], rel=0.02)
    assert many.bytes < 1.1 * few.bytes  # a video per chip either way
    assert few.costs.kernel_flops == many.costs.kernel_flops
    assert few.costs.kernel_flops.keys() == tpu.KERNEL_SHARES.keys()
    assert many.hosts == 4


@needs_libtpu
@pytest.mark.slow
def test_v1_fits_a_v5e_and_exchanges_its_gradients_once_per_part():
    """A quarter of an hour on two cores."""
    config = v1.get_config()
    config = tpu.fitted(config, (), tpu.shares(config, 'v5e:4x4'))
    made = tpu.compile_step(config, 'v5e:4x4')
    assert made.bytes < made.chip.memory
    assert set(made.costs.collectives) == {'all-reduce'}
    limit = config.train.parts * 1.2 * gradient_bytes(config)
    assert made.costs.collectives['all-reduce'] < limit
    assert made.utilisation > 0.17
    jax.clear_caches()
