"""The devices exchange gradients once per step: read from modules compiled for eight of them."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training import exchange

HERE = Path(__file__).parent
ALL_REDUCE = re.compile(r'= (.+?) all-reduce(?:-start)?\(')
OTHERS = re.compile(r'(all-gather|reduce-scatter|all-to-all|collective-\w+)(?:-start)?\(')


def run_on_eight_devices(*arguments):
    """Run Python on eight virtual devices and return its output."""
    environment = {
        **os.environ,
        'PYTHONPATH': str(HERE.parents[1]),
        'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8',
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module', params=[1, 4], ids=lambda parts: f'{parts} parts')
def module(request, tmp_path_factory):
    """The text of the compiled step."""
    path = tmp_path_factory.mktemp('exchange') / 'module.txt'
    run_on_eight_devices(HERE / 'exchange.py', path, str(request.param))
    return path.read_text()


def computations(text):
    """Return the lines of each computation of a module by name."""
    parts = re.split(r'^(?:ENTRY )?%([\w.\-]+) \(.*\{$', text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def inside_loops(text):
    """Return the names of the computations that a loop of the module runs."""
    known = computations(text)
    waiting = re.findall(r'body=%([\w.\-]+)', text)
    found = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            called = re.findall(r'%([\w.\-]+)', known[name])
            waiting += [each for each in called if each in known]
    return found


def test_no_loop_exchanges_anything(module):
    loops = inside_loops(module)
    assert len(loops) >= 2  # the layers forwards and backwards
    for name in loops:
        lines = computations(module)[name]
        assert not ALL_REDUCE.search(lines) and not OTHERS.search(lines), name


def test_every_gradient_is_exchanged_once_and_hardly_anything_else(module):
    assert not OTHERS.search(module)
    sizes = [
        math.prod(int(size) for size in shape.split(',') if size)
        for shapes in ALL_REDUCE.findall(module)
        for shape in re.findall(r'f32\[([\d,]*)\]', shapes)
    ]
    width, layers = exchange.WIDTH, exchange.LAYERS
    gradients = [7 * width, width, layers * width * width, layers * width]
    # And the total and the weight of the loss, and the sum of the gradient's squares.
    assert sorted(sizes) == sorted([*gradients, 2, 1])
    assert sum(sizes) <= sum(gradients) + 3


# A kernel is a function that must not be partitioned; see platform.on_each_device.
KERNEL = """
import jax, jax.numpy as jnp, numpy as np
from ml_collections import ConfigDict
from amuse_jax.models import platform
from amuse_jax.training import sharding

random, traced = np.random.default_rng(0), set()
params, x = {'w': random.normal(size=(3, 3))}, random.normal(size=(8, 3))

def kernel(x, w):
    traced.add(x.shape)
    return jnp.tanh(x @ w)

def gradient(shard, params, frozen, batch, key):
    run = platform.on_each_device(kernel, 1, 1)
    return jax.grad(lambda params: run(batch['x'], params['w']).sum())(params)

expected = jax.grad(lambda params: kernel(x, params['w']).sum())(params)['w']
traced.clear()
for sizes in ((8, 1, 1), (2, 2, 2), (1, 4, 2), (1, 1, 8)):
    mesh = sharding.mesh(ConfigDict(dict(zip(sharding.AXES, sizes))))
    total = jax.jit(sharding.sum_over_shards(gradient, mesh))
    found = total(params, {}, {'x': x}, jax.random.key(0))['w']
    print(np.allclose(found, expected, atol=1e-5), *traced)
    traced.clear()
"""


def test_every_device_runs_a_kernel_on_the_videos_of_its_shard():
    lines = run_on_eight_devices('-c', KERNEL).splitlines()
    assert lines == ['True (1, 3)', 'True (2, 3)', 'True (2, 3)', 'True (8, 3)']


def test_the_reader_of_modules_finds_an_exchange_in_a_loop():
    text = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

%body (p: f32[3]) -> f32[3] {
  ROOT %r = f32[3]{0} all-reduce(%p), to_apply=%add
}

ENTRY %main (x: f32[3]) -> f32[3] {
  ROOT %w = f32[3]{0} while(%x), condition=%cond, body=%body
}
"""
    assert inside_loops(text) == {'body', 'add'}
    assert ALL_REDUCE.search(computations(text)['body'])
    assert not ALL_REDUCE.search(computations(text)['main'])
