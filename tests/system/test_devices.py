"""Devices are counted without taking them from the processes that need them first."""

import os
import subprocess
import sys

import pytest

from tests.paths import ROOT

COUNT = """
import sys
from jax._src import xla_bridge
from amuse_jax.system import devices
print(devices.count(), len(xla_bridge._backends))
"""


def run(code, **environment):
    kept = {name: os.environ[name] for name in os.environ if name != 'JAX_PLATFORMS'}
    flags = '--xla_force_host_platform_device_count=3'
    environment = kept | {'CUDA_VISIBLE_DEVICES': '', 'XLA_FLAGS': flags} | environment
    return subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_on_a_host_with_a_gpu_another_process_counts():
    """A name imitates a GPU. This process has started no backend of JAX, so it holds no memory."""
    done = run(COUNT, CUDA_VISIBLE_DEVICES='0')
    assert done.stdout.split() == ['3', '0'], done.stderr


def test_on_a_cpu_this_process_counts():
    done = run(COUNT, JAX_PLATFORMS='cpu')
    count, backends = map(int, done.stdout.split())
    assert count == 3 and backends > 0


@pytest.mark.parametrize('gpu', ['', '0'])
def test_a_platform_that_is_not_here_is_one_sentence_in_either_process(gpu):
    code = (
        'from amuse_jax.errors import StageError\n'
        'from amuse_jax.system import devices\n'
        'try:\n'
        '  devices.count()\n'
        'except StageError as error:\n'
        '  print(error)\n'
    )
    done = run(code, JAX_PLATFORMS='cuda', CUDA_VISIBLE_DEVICES=gpu)
    assert done.stdout.startswith("JAX cannot start: JAX_PLATFORMS is 'cuda'"), done.stderr
