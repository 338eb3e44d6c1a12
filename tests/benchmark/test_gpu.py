"""The training step compiled ahead of time for GPUs. The compiler is needed, but no GPU."""

import json
import math
import os
import subprocess
import sys
from collections import Counter

import pytest

from amuse_jax.benchmark import compiling, gpu, hlo_gpu, plugin
from amuse_jax.errors import StageError
from amuse_jax.training import sharding
from configs import v1
from tests.benchmark import tiny
from tests.paths import ROOT

MISSING = plugin.problem(plugin.default_folder())
needs_compiler = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.mark.parametrize('topology', ['v5e:4x4', 'h100', 'h100:8', 'h100:1x1x0'])
def test_an_unknown_topology_is_refused(topology):
    with pytest.raises(StageError, match=f'--topology={topology}: expected a100-80, h100, h200'):
        gpu.topology_devices(topology)


@pytest.mark.parametrize('card', gpu.CARDS)
def test_a_card_is_described_with_the_source_of_its_values(card):
    text = gpu.description(card)
    assert 'openxla/xla' in text and 'commit' in text
    assert text.count('{') == text.count('}')
    generation = card.split('-')[0].upper()
    assert f'device_description_str: "NVIDIA {generation}' in text


def test_a_missing_compiler_is_one_sentence(tmp_path):
    line = [sys.executable, '-m', 'amuse_jax.benchmark', 'gpu', f'--plugin={tmp_path}']
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert f'pip install --no-deps --upgrade --target={tmp_path} jax-cuda13-plugin==' in last


def test_every_shard_gets_the_batch_of_the_config():
    config = v1.get_config().lock()
    assert gpu.fit_to_cards(config, (), 16).train.batch_size == 16 * 8
    assert gpu.fit_to_cards(config, ('train.batch_size',), 16).train.batch_size == 8
    assert config.train.batch_size == 8


def make_step(config, topology='h100:1x1x1', devices=1, hosts=1):
    """Return a step of three kernels: 2 x 30 ms of products, 20 ms of bytes, one all-reduce."""
    card = gpu.CARDS['h100']
    costs = hlo_gpu.Costs(
        kernels=[
            hlo_gpu.Kernel('a', hlo_gpu.PRODUCTS, 'a.py:1 f', 2, round(0.03 * card.measured), 8),
            hlo_gpu.Kernel('b', hlo_gpu.ATTENTION, 'b.py:2 g', 1, 7, round(0.02 * 3352320000000)),
            hlo_gpu.Kernel('c', hlo_gpu.COLLECTIVES, 'sum', 1, 0, 10**12),
        ],
        collectives=Counter({'all-reduce': 18 * 10**9}),
        calls=Counter({'all-reduce': 1}),
    )
    flops = round(0.06 * card.measured * devices)
    memory = {'arguments': 10**9, 'temporaries': 2 * 10**9}
    return gpu.CompiledStep(topology, config, devices, hosts, flops, flops / 2, 60.0, memory, costs)


def test_every_kernel_takes_the_longer_of_its_products_and_its_bytes(small):
    step = make_step(small)
    launches = 4 * gpu.LAUNCH_SECONDS
    assert step.seconds()['kernels'] == pytest.approx(0.08 + launches, rel=1e-6)
    assert step.step_seconds == pytest.approx(0.08 + launches, rel=1e-6)  # one device: no links
    assert step.share_of_measured == pytest.approx(0.03 / 0.08, rel=1e-3)
    assert step.utilisation == pytest.approx(0.03 / 0.08 * 798 / 989, rel=1e-3)
    costly, seconds = step.scopes().most_common(1)[0]
    assert costly == 'products: a.py:1 f' and seconds == pytest.approx(0.06, rel=1e-3)


def test_the_slower_of_nvlink_and_network_bounds_the_collectives(small):
    """In a ring of 8, each card sends 2 x 7/8 of the array."""
    step = make_step(small, 'h100:1x1x8', devices=8)
    assert step.seconds()['links'] == pytest.approx(2 * 18e9 * 7 / 8 / 450e9)
    step = make_step(small, 'h100:1x2x8', devices=16, hosts=2)
    assert step.seconds()['links'] == pytest.approx(2 * 18e9 * 15 / 16 / (8 * 50e9))


def test_the_figures_are_printed_and_saved(small):
    step = make_step(small)
    text = ' '.join(gpu.describe_step(step).split())
    assert 'memory per card 3 of 85 GB' in text
    assert 'kernels 4 all-reduces 1, 18000.0 MB' in text
    assert 'of the 798 TFLOP/s that a large product reaches' in text
    assert '60.00 ms products: a.py:1 f' in text
    figures = json.loads(json.dumps(gpu.figures(step)))
    assert figures['bytes']['attention'] == round(0.02 * 3352320000000)
    assert figures['kernels'] == 4
    assert figures['collectives'] == {'all-reduce': {'calls': 1, 'bytes': 18 * 10**9}}


# In a process of its own, because JAX finds its compilers once.
COMPILE_A_PRODUCT = """
from amuse_jax.benchmark import plugin
plugin.use(plugin.default_folder())
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from amuse_jax.benchmark import gpu, hlo_gpu
for card in gpu.CARDS:
    devices = gpu.topology_devices(f'{card}:1x2x8')
    hosts = {device.process_index for device in devices}
    x = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=SingleDeviceSharding(devices[0]))
    traced = jax.jit(jnp.matmul).trace(x, x)
    compiled = traced.lower(lowering_platforms=('cuda',)).compile(compiler_options=gpu.OPTIONS)
    costs = hlo_gpu.costs(compiled.as_text())
    print(card, len(devices), len(hosts), costs.launches, costs.flops, *costs.bytes_by_kind())
"""


@needs_compiler
def test_the_compiler_accepts_every_card():
    line = [sys.executable, '-c', COMPILE_A_PRODUCT]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        f'{card} 16 2 1 {2 * 256**3} products' for card in gpu.CARDS
    ]


@needs_compiler
def test_a_small_step_moves_what_it_did_and_exchanges_gradients_alone(tmp_path):
    """The figures are those of jax 0.10.2. This takes a minute of two quiet cores.

    A change that lowers a figure by more than its tolerance belongs here too.
    """
    environment = {**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
    dump = tmp_path / 'module.txt'
    line = [sys.executable, '-m', 'amuse_jax.benchmark', 'gpu', '--config=tests/benchmark/tiny.py']
    line += ['--topology=h100:1x1x8', f'--out={tmp_path}', f'--dump={dump}']
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert dump.read_text().startswith('HloModule jit_step')
    (found,) = json.loads((tmp_path / 'gpu.json').read_text())['runs']
    assert found['settings']['videos'] == 8 * tiny.get_config().train.batch_size
    assert sum(found['bytes'].values()) == pytest.approx(93.3e6, rel=0.05)
    assert found['memory_bytes']['temporaries'] == pytest.approx(8.83e6, rel=0.05)
    assert found['kernels'] == pytest.approx(1773, rel=0.05)
    # XLA pads small products; the rest is computed again for the gradient.
    assert found['useful_flops'] / 8 < found['product_flops'] < 1.4 * found['useful_flops'] / 8

    # Gradients are exchanged once, as float32 numbers.
    assert found['collectives'].keys() == {'all-reduce'}
    assert found['collectives']['all-reduce']['calls'] == 1
    exchanged = found['collectives']['all-reduce']['bytes']
    assert exchanged == pytest.approx(gradient_bytes(tiny.get_config()), rel=1e-3)
    assert exchanged == pytest.approx(2.110e6, rel=0.05)


def gradient_bytes(config) -> int:
    """Return the size of all trainable parameters as float32."""
    _, (state, *_) = compiling.abstract_step(config, sharding.single_device_mesh())
    return sum(4 * math.prod(array.shape) for array in state.params.values())
