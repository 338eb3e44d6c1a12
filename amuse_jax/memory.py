"""How this process keeps the memory it frees."""

import ctypes
import sys

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
LARGEST = 2**31 - 1


def keep_freed() -> None:
    """Tells glibc to use freed memory again instead of handing it back to the kernel.

    Fresh pages come at about 1 GB/s, touched ones at forty times that: a training step on a CPU
    takes up to a quarter less time. Has no effect on a system without glibc.
    """
    if not sys.platform.startswith('linux'):
        return
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, LARGEST)
    mallopt(M_TOP_PAD, 2**28)
