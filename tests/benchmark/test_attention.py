"""The comparison of attention's backends. Those for GPUs run where there is one."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from amuse_jax.benchmark import attention, plugin
from configs import v1
from tests.benchmark import tiny
from tests.benchmark.command import command
from tests.paths import ROOT

MISSING = plugin.problem(plugin.default_folder())


def test_the_cases_of_v1():
    assert [(case.name, case.sizes) for case in attention.cases(v1.get_config())] == [
        ('Swin-V2 windows', '400 x 144, 24 heads of 32, cosine, bias'),
        ('HTS-AT windows', '1600 x 64, 16 heads of 24, bias, shift mask'),
        ('adapters, video to audio', '400 x 144 to 256 keys, 4 heads of 64'),
        ('adapters, audio to video', '400 x 256 to 144 keys, 4 heads of 64'),
        ('adapters, video to words', '400 x 144 to 32 keys, 4 heads of 64, mask'),
        ('adapters, words to video', '40 x 32 to 1440 keys, 4 heads of 64, mask'),
        ('adapters, words to audio', '40 x 32 to 2560 keys, 4 heads of 64, mask'),
    ]
    window = attention.cases(v1.get_config())[0]
    assert window.flops == 2 * 2 * 400 * 24 * 144 * 144 * 32


@pytest.fixture(scope='module')
def cases():
    return {case.name: case for case in attention.cases(tiny.get_config())}


@pytest.mark.parametrize('name', [case.name for case in attention.cases(tiny.get_config())])
def test_xla_agrees_with_attention_written_out(cases, name):
    """Softmax over all keys of a row, one row, one head and one window at a time."""
    case = cases[name]
    arguments = attention.inputs(case, 'float32')
    found = attention.backends(case, 'cpu')[attention.PLAIN](*arguments)
    if case.map is None:
        query, key, value, counts = arguments
        counts = jnp.full(case.batch, case.keys) if counts is None else counts
        head = slice(-case.channels, None)
        for row in (0, case.batch - 1):
            scores = query[row, :, head] @ key[row, : counts[row], head].T * case.channels**-0.5
            expected = jax.nn.softmax(scores) @ value[row, : counts[row], head]
            assert jnp.allclose(found[row, :, head], expected, atol=1e-4)
        return
    # The first window of a map that is shifted by one token begins at row and column 1.
    qkv, bias, scale = arguments
    side, window = case.map.size[1], case.map.window
    places = [
        (row + case.map.shift[0]) * side + column + case.map.shift[1]
        for row in range(window[0])
        for column in range(window[1])
    ]
    width = case.heads * case.channels
    query, key, value = (
        qkv[0, jnp.array(places), i * width :][:, : case.channels] for i in (0, 1, 2)
    )
    if case.cosine:
        query, key = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
    expected = jax.nn.softmax(query @ key.T * scale[0] + bias[0]) @ value
    assert jnp.allclose(found[0, jnp.array(places), : case.channels], expected, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_backends_for_gpus_agree_with_float32(dtype):
    config = v1.get_config()
    config.train.update(batch_size=1, questions=2)
    for case in attention.cases(config):
        for row in attention._measure_case(case, dtype, rounds=1):
            assert 'error' not in row, row
            assert row['difference'] < 0.05, row  # in bfloat16, XLA's own has 0.02


# In a process of its own, because JAX finds its compilers once.
COMPILE_FOR_A_GPU = """
from amuse_jax.benchmark import plugin
plugin.use(plugin.default_folder())
import jax
from jax.sharding import SingleDeviceSharding
from amuse_jax.benchmark import attention, gpu, hlo_gpu
from configs import v1
sharding = SingleDeviceSharding(gpu.topology_devices('h100:1x1x1')[0])
config = v1.get_config()
config.train.update(batch_size=1, questions=2)
for case in attention.cases(config):
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        attention.inputs(case, 'bfloat16'),
    )
    rows = case.batch * (case.map.windows if case.map else 1)
    scores = rows * case.heads * case.queries * case.keys
    for name, attend in attention.backends(case, 'gpu').items():
        if name != attention.PLAIN:
            for work in attention._works(attend, case).values():
                lowered = work.trace(*arguments).lower(lowering_platforms=('cuda',))
                compiled = lowered.compile(compiler_options=gpu.OPTIONS)
                kernels = hlo_gpu.costs(compiled.as_text())
                stored = any(array.size == scores for array, _ in kernels.arrays())
                print(f'{case.name}: {name}, {kernels.flops >= case.flops}, {stored}')
"""


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_backends_for_gpus_compile_in_v1_s_shapes_and_store_no_scores():
    """Their products are all there, forwards and with gradients."""
    line = [sys.executable, '-c', COMPILE_FOR_A_GPU]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        f'{case.name}: {name}, True, False'
        for case in attention.cases(v1.get_config())
        for name in attention.backends(case, 'gpu')
        if name != attention.PLAIN
        for _ in attention.WORKS
    ]


@pytest.mark.slow
def test_the_command_prints_and_saves_every_backend(tmp_path):
    done = command(
        'attention', '--config=tests/benchmark/tiny.py', '--rounds=1', f'--out={tmp_path}'
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / 'attention.json').read_text())
    assert found['machine'] and found['versions']['jax'] == jax.__version__
    expected = [(case.name, attention.PLAIN) for case in attention.cases(tiny.get_config())]
    assert [(row['case'], row['backend']) for row in found['rows']] == expected
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected)
    for row, line in zip(found['rows'], lines):
        assert row['dtype'] == 'bfloat16' and row['difference'] < 0.03
        assert line == attention.format_row(row)
        assert re.search(
            r'forward [\d.]+ ms, [\d.e-]+ TFLOP/s; forward and backward [\d.]+ ms', line
        )


def test_a_backend_that_fails_is_named_and_the_others_are_measured(cases, monkeypatch):
    def fails(*arguments, case):
        raise NotImplementedError('no such heads')

    broken = {'broken': (('cpu',), fails), **attention.SETS}
    monkeypatch.setattr(attention, 'SETS', broken)
    rows = attention._measure_case(cases['adapters, video to words'], 'float32', rounds=1)
    assert [row['backend'] for row in rows] == ['broken', attention.PLAIN]
    assert attention.format_row(rows[0]).endswith('broken: fails: no such heads')
    assert rows[1]['difference'] < 1e-5 and rows[1]['forward']['seconds'] > 0
