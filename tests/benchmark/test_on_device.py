"""The estimated step on this machine's device; launch/on_a_gpu.sh compiles and runs a real one."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from amuse_jax.benchmark import ahead_of_time, compiling, on_device
from amuse_jax.training import sharding
from amuse_jax.training.train.answering import QUESTION_FREE
from tests.benchmark import tiny

GPU_MODULE = Path(__file__).with_name('gpu_module.txt').read_text()


@pytest.mark.parametrize(
    'kind, card',
    [
        ('NVIDIA H100 80GB HBM3', 'h100'),
        ('NVIDIA H200', 'h200'),
        ('NVIDIA B200', 'b200'),
        ('NVIDIA A100-SXM4-80GB', 'a100-80'),
        ('NVIDIA A100-SXM4-40GB', None),
        ('NVIDIA GeForce RTX 5090', None),
        ('cpu', None),
    ],
)
def test_a_card_is_known_by_its_name(kind, card):
    assert on_device.card_of(kind) == card


def test_random_arguments_fit_the_step():
    config, device = tiny.get_config(), jax.devices()[0]
    found = on_device.random_arguments(config, device)
    _, expected = compiling.abstract_step(config, sharding.mesh(config.mesh, [device]))
    arrays = found.state, found.frozen, found.batch, found.key
    for array, shape in zip(jax.tree.leaves(arrays), jax.tree.leaves(expected), strict=True):
        assert (array.shape, array.dtype, array.sharding) == (
            shape.shape,
            shape.dtype,
            shape.sharding,
        )
    tokens = [found.batch[name] for name in QUESTION_FREE]
    assert all(
        np.asarray(array, np.float32).std() == pytest.approx(1, rel=0.05) for array in tokens
    )
    norms = [array for name, array in found.state.params.items() if name.endswith('scale')]
    assert norms and all(np.asarray(array).min() == 1 for array in norms if array.ndim == 1)
    assert found.batch['words'].max() > 1000  # words, not zeros


class Compiled:
    """Stands in for a compiled step; its third call is the first that is measured."""

    def __init__(self, text, finite=True):
        self.text, self.finite, self.calls = text, finite, 0

    def __call__(self, state, frozen, batch, key):
        self.calls += 1
        return state + 1, np.array(self.finite)

    def as_text(self):
        return self.text


@pytest.fixture
def given(monkeypatch):
    """Let `run` find this compiled step on a card, with a report that fits it."""

    def give(compiled, card='h100'):
        def compile_step(config, topology, devices, target, options=None, dump=None):
            memory = {'arguments': 10**9, 'temporaries': 2 * 10**9}
            step = ahead_of_time.CompiledStep(topology, config, 1, 1, 2e12, 1e12, 60.0, memory)
            return step, compiled

        monkeypatch.setattr(ahead_of_time, 'compile_step', compile_step)
        monkeypatch.setattr(on_device, 'card_of', lambda kind: card)
        arguments = on_device.Arguments(0, {}, {}, None)
        monkeypatch.setattr(on_device, 'random_arguments', lambda *_: arguments)
        return arguments

    return give


def test_the_estimate_stands_beside_the_measurement(given, tmp_path, capsys):
    compiled = Compiled(GPU_MODULE)
    arguments = given(compiled)
    on_device.run(tiny.get_config(), 4, tmp_path)
    assert compiled.calls == arguments.state == on_device.WARMUP + 4 + on_device.TRACED
    (saved,) = json.loads((tmp_path / 'step.json').read_text())['runs']
    assert saved['step_seconds'] > 0 and saved['settings']['topology'] == 'h100:1x1x1'
    assert saved['useful_flops_per_second'] == pytest.approx(1e12 / saved['step_seconds'])
    assert saved['estimate']['kernels'] == 7 * 5 + 8
    assert list((tmp_path / 'trace').rglob('*.xplane.pb'))
    printed = capsys.readouterr().out
    assert 's a step (measured)' in printed and 'seconds per step, estimated' in printed


def test_an_estimate_that_fails_leaves_the_measurement(given, tmp_path):
    given(Compiled('unreadable'))
    with pytest.raises(ValueError, match='found no ENTRY'):
        on_device.run(tiny.get_config(), 1, tmp_path)
    (saved,) = json.loads((tmp_path / 'step.json').read_text())['runs']
    assert saved['step_seconds'] > 0 and 'estimate' not in saved


def test_a_device_without_a_description_has_no_estimate(given, tmp_path, capsys):
    given(Compiled('unreadable'), card=None)
    assert 'estimate' not in on_device.run(tiny.get_config(), 1, tmp_path)
    assert 'is none of a100-80, h100, h200, b200' in capsys.readouterr().out


def test_a_step_that_was_refused_is_not_measured(given, tmp_path):
    given(Compiled(GPU_MODULE, finite=False))
    with pytest.raises(FloatingPointError, match='not finite'):
        on_device.run(tiny.get_config(), 1, tmp_path)
