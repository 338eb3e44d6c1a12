"""The number of usable CPUs: affinity, and quotas of control groups of both versions."""

import ast
import os
import subprocess
import sys

import pytest

from amuse_jax.system import cpus
from tests.paths import ROOT
from tests.system.control_groups import write


@pytest.fixture
def many_cpus(monkeypatch):
    """An affinity mask of 128 CPUs."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(128)), raising=False)


def test_without_control_groups_the_affinity_counts(tmp_path, many_cpus):
    assert cpus.usable(tmp_path) == 128


@pytest.mark.parametrize(
    ('quota', 'expected'),
    [('800000 100000', 8), ('max 100000', 128), ('250000 100000', 3), ('1000 100000', 1)],
)
def test_a_quota_of_version_2(tmp_path, many_cpus, quota, expected):
    write(tmp_path, proc__self__cgroup='0::/slurm/job\n')
    group = tmp_path / 'sys/fs/cgroup/slurm'  # the limit is that of an outer group
    (group / 'job').mkdir(parents=True)
    (group / 'job/cpu.max').write_text('max 100000\n')
    (group / 'cpu.max').write_text(f'{quota}\n')
    assert cpus.usable(tmp_path) == expected


@pytest.mark.parametrize(('quota', 'expected'), [('400000', 4), ('-1', 128)])
def test_a_quota_of_version_1(tmp_path, many_cpus, quota, expected):
    write(tmp_path, proc__self__cgroup='4:memory:/a\n1:cpu,cpuacct:/docker/7\n0::/\n')
    group = tmp_path / 'sys/fs/cgroup/cpu'  # a container shows its own group as the root
    group.mkdir(parents=True)
    (group / 'cpu.cfs_quota_us').write_text(f'{quota}\n')
    (group / 'cpu.cfs_period_us').write_text('100000\n')
    assert cpus.usable(tmp_path) == expected


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='needs CPU affinity')
def test_a_process_on_one_cpu_counts_one():
    code = (
        'import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n'
        'from amuse_jax.system import cpus; print(cpus.usable())'
    )
    found = subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, text=True)
    assert found.strip() == '1'


def test_nothing_else_counts_cpus():
    """`os.cpu_count` and its kin count the CPUs of the machine, not those of a job."""
    counting = {'cpu_count', 'process_cpu_count', 'sched_getaffinity'}
    for path in (ROOT / 'amuse_jax').rglob('*.py'):
        tree = ast.parse(path.read_text('utf-8'))
        found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & counting
        allowed = {'cpus.py': counting, 'processes.py': {'sched_getaffinity'}}
        assert found <= allowed.get(path.name, set()), path
