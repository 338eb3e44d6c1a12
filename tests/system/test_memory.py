import subprocess
import sys

import pytest

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
