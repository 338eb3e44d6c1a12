import subprocess
import sys

import numpy as np
import pytest

from amuse_jax.errors import StageError
from amuse_jax.system import memory
from tests.system.control_groups import write

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from amuse_jax.system import memory

def resident():  # MiB
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096 >> 20

if sys.argv[1] == 'keep':
    memory.keep_freed()
before = resident()
array = np.ones(int(sys.argv[2]) << 20, np.uint8)
del array
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs glibc')
@pytest.mark.parametrize('size', [64, 2500], ids=['small', 'beyond-2-GiB'])
def test_freed_memory_stays_with_the_process(size):
    with_setting, default = (
        int(subprocess.check_output([sys.executable, '-c', PROGRAM, how, str(size)], text=True))
        for how in ('keep', 'no')
    )
    assert with_setting >= size - 4 and default <= 10


MEMINFO = 'MemTotal:       24000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n'


def test_without_a_limit_the_kernel_says_what_is_available(tmp_path):
    assert memory.available(tmp_path) is None
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup='0::/job\n')
    group = tmp_path / 'sys/fs/cgroup/job'
    group.mkdir(parents=True)
    (group / 'memory.max').write_text('max\n')
    (group / 'memory.current').write_text('5000\n')
    assert memory.available(tmp_path) == 8000 * 1024


def test_the_tightest_control_group_counts(tmp_path):
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup='0::/outer/job\n')
    for name, limit, used, cached in (('outer', 9000, 4000, 500), ('outer/job', 8000, 1000, 0)):
        group = tmp_path / 'sys/fs/cgroup' / name
        group.mkdir(parents=True, exist_ok=True)
        (group / 'memory.max').write_text(f'{limit}\n')
        (group / 'memory.current').write_text(f'{used}\n')
        (group / 'memory.stat').write_text(f'anon 7\ninactive_file {cached}\n')
    assert memory.available(tmp_path) == 9000 - 4000 + 500


def test_groups_of_version_1_count_too(tmp_path):
    lines = '3:cpu:/\n2:memory:/slurm/job\n0::/\n'
    write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup=lines)
    group = tmp_path / 'sys/fs/cgroup/memory'  # a container shows its own group as the root
    group.mkdir(parents=True)
    (group / 'memory.limit_in_bytes').write_text('6000\n')
    (group / 'memory.usage_in_bytes').write_text('7000\n')
    (group / 'memory.stat').write_text('total_inactive_file 3000\n')
    assert memory.available(tmp_path) == 2000
    (group / 'memory.limit_in_bytes').write_text(f'{2**63 - 4096}\n')  # no limit
    assert memory.available(tmp_path) == 8000 * 1024


def test_this_host_says_what_is_available():
    assert 0 < memory.available() < 2**50


def allocate_numpy():
    np.ones(2**50, np.uint8)


def allocate_torch():
    pytest.importorskip('torch').empty(2**50)


@pytest.mark.parametrize('allocate', [allocate_numpy, allocate_torch])
def test_too_little_memory_is_a_sentence_with_advice(allocate):
    with pytest.raises(StageError, match='^drums: memory ran out .*; play less$'):
        with memory.shortage_as_error('drums', 'play less'):
            allocate()


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match='out of tune'):
        with memory.shortage_as_error('drums', 'play less'):
            raise RuntimeError('out of tune')
