import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from amuse_jax import memory

if sys.argv[1] == 'keep':
    memory.keep_freed()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(32 << 20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs glibc')
def test_freed_memory_is_used_again():
    kept, usual = (
        int(subprocess.check_output([sys.executable, '-c', PROGRAM, how], text=True))
        for how in ('keep', 'no')
    )
    assert kept < usual / 5  # page faults: once for all arrays, or once for each
