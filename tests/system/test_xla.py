import os
import subprocess
import sys

import jax
import pytest

from amuse_jax.system import xla

ALL = xla.CPU_OPTIONS | xla.GPU_OPTIONS | xla.GPU_OPTIONS_OF_SEVERAL


def test_this_version_of_xla_knows_every_option():
    assert xla.usable(ALL, '') == ALL


def test_unknown_options_are_left_out():
    options = {'xla_gpu_autotune_level': 4, 'xla_gpu_of_a_later_version': True}
    assert xla.usable(options, '') == {'xla_gpu_autotune_level': 4}


def test_the_users_flags_win():
    flags = '--xla_gpu_enable_latency_hiding_scheduler=false --xla_dump_to=/tmp/x'
    assert set(xla.usable(ALL, flags)) == set(ALL) - {'xla_gpu_enable_latency_hiding_scheduler'}


def test_one_device_hides_no_exchange(monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '')
    assert xla.gpu_options(1) == xla.GPU_OPTIONS
    assert xla.gpu_options(8) == xla.GPU_OPTIONS | xla.GPU_OPTIONS_OF_SEVERAL


@pytest.mark.parametrize(
    ('name', 'users', 'ours'),
    [
        ('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.5', '0.9'),
        ('XLA_PYTHON_CLIENT_PREALLOCATE', 'true', 'false'),
    ],
)
def test_variables_of_the_environment_win(monkeypatch, name, users, ours):
    monkeypatch.setenv(name, users)
    xla.set_environment(shares_gpus=True)
    assert os.environ[name] == users
    monkeypatch.delenv(name)
    xla.set_environment(shares_gpus=True)
    assert os.environ[name] == ours


COMPILE = """
import sys, jax
from pathlib import Path
from amuse_jax.system import xla
xla.enable_compilation_cache(Path(sys.argv[1]))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.jit(lambda x: x + 1)(1.0)
print(jax.config.jax_persistent_cache_enable_xla_caches)
"""


def test_compiled_programs_are_stored(tmp_path, monkeypatch):
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')  # a user's folder would stay
    before = jax.config.jax_compilation_cache_dir
    found = subprocess.check_output([sys.executable, '-c', COMPILE, tmp_path], text=True)
    assert found.strip() == 'xla_gpu_per_fusion_autotune_cache_dir'
    assert any(path.name.startswith('jit_') for path in tmp_path.iterdir())
    assert jax.config.jax_compilation_cache_dir == before  # the other process was asked alone
