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
from amuse_jax.models.window_map import WindowMap
from amuse_jax.training import sharding
from configs import v1
from tests.benchmark import distinct
from tests.paths import ROOT

MISSING = plugin.problem(plugin.default_folder())
needs_compiler = pytest.mark.skipif(bool(MISSING), reason=MISSING)
CARDS = 8


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


# The compiled small step has frozen towers, whose attention needs no gradient of its bias.
COMPILE_TRAINED_ATTENTION = """
from amuse_jax.benchmark import plugin
plugin.use(plugin.default_folder())
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from amuse_jax.benchmark import gpu, hlo_gpu
from amuse_jax.models.attention import gpu as attention
from amuse_jax.models.window_map import WindowMap
(device,) = gpu.topology_devices('h100:1x1x1')
for size in ((4, 4), (8, 8)):
    window_map = WindowMap.of(size, 4)
    shapes = (2, size[0] * size[1], 48), (1, 16, 16), (1,)
    arrays = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))
        for shape, dtype in zip(shapes, (jnp.bfloat16, jnp.float32, jnp.float32))
    ]
    def loss(*arrays):
        return jnp.sum(attention.attend(*arrays, window_map, cosine=True))
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*arrays)
    compiled = traced.lower(lowering_platforms=('cuda',)).compile(compiler_options=gpu.OPTIONS)
    kernels = hlo_gpu.costs(compiled.as_text()).kernels
    print(window_map.windows, *sorted(kernel.flops for kernel in kernels if kernel.flops))
"""


@needs_compiler
def test_the_compiler_accepts_attention_with_trained_biases():
    line = [sys.executable, '-c', COMPILE_TRAINED_ATTENTION]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    product = 2 * 2 * 16 * 16 * 16  # images, tokens, channels; of one window
    # Three products for the bias, and five for queries, keys and values.
    assert done.stdout.splitlines() == [f'{n} {3 * n * product} {5 * n * product}' for n in (1, 4)]


@pytest.fixture(scope='module')
def compiled(tmp_path_factory):
    """Return the figures and the costs of a small step for eight H100s, in two parts.

    This takes a minute of two quiet cores.
    """
    folder = tmp_path_factory.mktemp('gpu')
    environment = {**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
    line = [sys.executable, '-m', 'amuse_jax.benchmark', 'gpu']
    line += ['--config=tests/benchmark/distinct.py', f'--topology=h100:1x1x{CARDS}']
    line += [f'--out={folder}', f'--dump={folder / "module.txt"}']
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (folder / 'module.txt').read_text()
    assert text.startswith('HloModule jit_step')
    (found,) = json.loads((folder / 'gpu.json').read_text())['runs']
    return found, hlo_gpu.costs(text)


@pytest.mark.slow
@needs_compiler
def test_a_small_step_moves_what_it_did(compiled):
    """The figures are those of jax 0.10.2. A change that lowers one by more belongs here too."""
    found, _ = compiled
    assert found['settings']['videos'] == CARDS * distinct.get_config().train.batch_size
    assert sum(found['bytes'].values()) == pytest.approx(351.0e6, rel=0.05)
    assert found['memory_bytes']['temporaries'] == pytest.approx(24.94e6, rel=0.05)
    assert found['kernels'] == pytest.approx(3068, rel=0.05)
    # XLA pads small products; the rest is computed again for the gradient.
    useful = found['useful_flops'] / CARDS
    assert useful < found['product_flops'] < 1.4 * useful


@pytest.mark.slow
@needs_compiler
def test_gradients_alone_are_exchanged_once_outside_the_parts_loop(compiled):
    found, costs = compiled
    assert found['collectives'].keys() == {'all-reduce'}
    exchanged = found['collectives']['all-reduce']['bytes']
    assert exchanged == pytest.approx(gradient_bytes(distinct.get_config()), rel=1e-3)
    collectives = [kernel for kernel in costs.kernels if kernel.kind == hlo_gpu.COLLECTIVES]
    assert collectives and {kernel.times for kernel in collectives} == {1}


def scores(config):
    """Return (rows, heads, queries, keys) of every attention of one part on one card.

    rows is the number of windows or of sets of tokens, of each of which every head has scores.
    """
    model = config.model
    videos = config.train.batch_size // config.train.parts
    questions, segments = config.train.questions, config.data.segments
    words = model.text.max_words
    found, tokens = {(videos * questions, model.text.heads, words, words)}, []
    for tower in (model.visual, model.audio):
        side = tower.image_size // tower.patch
        for stage, heads in enumerate(tower.heads):
            window_map = WindowMap.of((side, side), tower.window)
            for images in (videos * segments, videos * questions * segments):
                rows = images * window_map.windows
                found.add((rows, heads, window_map.tokens, window_map.tokens))
            if stage == 2:  # its tokens meet the adapters
                tokens.append(side * side)
            side //= 2
    heads, (visual, audio) = model.adapters.heads, tokens
    for images in (videos * segments, videos * questions * segments):
        found |= {(images, heads, visual, audio), (images, heads, audio, visual)}
    for count in tokens:
        found.add((videos * questions * segments, heads, count, words))
        found.add((videos * questions, heads, words, segments * count))
    return found


def is_scores(array, found):
    """Return whether an array has all scores of an attention: queries and keys are its last axes.

    A fusion may have split or joined the rows and heads in front of them. XLA pads small products
    to multiples of eight.
    """
    for rows, heads, queries, keys in found:
        for pair in ((queries, keys), (-(-queries // 8) * 8, -(-keys // 8) * 8)):
            if array.size == rows * heads * math.prod(pair):
                joined = (
                    math.prod(pair) > 16 and math.prod(pair) == array.shape[-1]
                )  # 16 is a width
                if array.shape[-2:] in (pair, pair[::-1]) or joined:
                    return True
    return False


@pytest.mark.slow
@needs_compiler
def test_no_attention_scores_are_in_memory(compiled):
    _, costs = compiled
    found = scores(distinct.get_config())
    kernels = {(a.dtype, a.shape, k.scope) for a, k in costs.arrays() if is_scores(a, found)}
    assert not kernels, sorted(kernels)


def tokens(config):
    """Return (images, tokens of one, channels) of all visual and audio tokens of a part on a card.

    Words are so few that XLA splits the gradient of their norms into kernels with float32 results.
    Channels are also those of queries, keys and values together, and of an MLP's hidden layer.
    """
    model = config.model
    videos = config.train.batch_size // config.train.parts
    questions, segments = config.train.questions, config.data.segments
    found = set()
    for tower in (model.visual, model.audio):
        for stage in range(2, len(tower.depths)):  # the tokens of earlier stages are stored
            count = (tower.image_size // tower.patch // 2**stage) ** 2
            width = tower.width * 2**stage
            widths = {width, 3 * width, 4 * width}
            widths |= {model.adapters.width, 4 * model.adapters.width} if stage == 2 else set()
            for images in (videos * segments, videos * questions * segments):
                found |= {(images, count, each) for each in widths}
    return found


def is_tokens(array, found):
    """Return whether an array has the size of tokens, and an axis with one or all of them."""
    return any(
        array.size == images * count * channels and {count, images * count} & {*array.shape}
        for images, count, channels in found
    )


@pytest.mark.slow
@needs_compiler
def test_no_tokens_are_in_memory_as_float32(compiled):
    _, costs = compiled
    found = tokens(distinct.get_config())
    float32 = ((a, k) for a, k in costs.arrays() if a.dtype == 'f32')
    kernels = {(a.shape, k.scope) for a, k in float32 if is_tokens(a, found)}
    assert not kernels, sorted(kernels)


def gradient_bytes(config) -> int:
    """Return the size of all trainable parameters as float32."""
    _, (state, *_) = compiling.abstract_step(config, sharding.single_device_mesh())
    return sum(4 * math.prod(array.shape) for array in state.params.values())
