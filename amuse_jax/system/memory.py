"""The memory of this process: its allocator, what the host has left, and what to do without it."""

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.system import control_groups

# Parameter numbers from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1  # thresholds are ints: any positive one would still return memory beyond 2 GiB


def keep_freed() -> None:
    """Make glibc reuse freed memory instead of returning it to the kernel.

    The kernel provides fresh pages at about 1 GB/s; pages that the process already holds are forty
    times as fast. A training step on a CPU takes up to a quarter less time. This has no effect on
    a system without glibc.
    """
    glibc = _glibc()
    if glibc is not None:
        glibc.mallopt(M_MMAP_MAX, 0)
        glibc.mallopt(M_TRIM_THRESHOLD, NEVER)
        glibc.mallopt(M_TOP_PAD, 2**28)


def release() -> None:
    """Return all free memory to the kernel. This has no effect on a system without glibc."""
    glibc = _glibc()
    if glibc is not None:
        glibc.malloc_trim(0)


@contextlib.contextmanager
def shortage_as_error(name: str, advice: str) -> Iterator[None]:
    """Turn the various errors of PyTorch, JAX and Python for too little memory into a `StageError`.

    Args:
      name: what needs the memory; the message begins with it.
      advice: what the user can do.

    Raises:
      StageError: the memory of the host or of an accelerator ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # PyTorch's and JAX's are RuntimeErrors
        text = ' '.join(str(error).split())
        if not isinstance(error, MemoryError) and not re.search(_SHORTAGE, text, re.IGNORECASE):
            raise
        text = text[:200] or 'MemoryError'
        raise StageError(f'{name}: memory ran out ({text}); {advice}') from error


# In CUDA's, XLA's and the host's messages.
_SHORTAGE = "out of memory|RESOURCE_EXHAUSTED|can't allocate memory|not enough memory"


def available(root: Path = Path('/')) -> int | None:
    """Return the bytes that this process can still use, or None if that is unknown.

    This is the kernel's estimate of the available memory, or less if a control group (a container
    or a batch job) sets a limit. Cached files count as available.

    Args:
      root: the root of the file system; tests use another one.
    """
    sizes = [_kernel_estimate(root)]
    for folder, version in control_groups.folders('memory', root):
        sizes.append(_left_in_group(folder, *_FILES[version]))
    return min((size for size in sizes if size is not None), default=None)


def _kernel_estimate(root: Path) -> int | None:
    text = control_groups.read(root / 'proc/meminfo')
    match = re.search(r'^MemAvailable:\s+(\d+) kB$', text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


# By version of control groups: the files of the limit and of the use, and the name of the memory in
# memory.stat that can be freed.
_FILES = {
    1: ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
    2: ('memory.max', 'memory.current', 'inactive_file'),
}


def _left_in_group(group: Path, limit_name: str, used_name: str, cached_name: str) -> int | None:
    """Return the bytes left in a control group, or None if it has no limit."""
    limit = control_groups.read(group / limit_name).strip()
    used = control_groups.read(group / used_name).strip()
    if not limit.isdigit() or not used.isdigit() or int(limit) >= 2**60:  # 'max', or no limit
        return None
    statistics = control_groups.read(group / 'memory.stat')
    cached = re.search(rf'^{cached_name} (\d+)$', statistics, re.MULTILINE)
    return max(int(limit) - int(used) + (int(cached[1]) if cached else 0), 0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc, else None."""
    if not sys.platform.startswith('linux'):
        return None
    try:
        library = ctypes.CDLL('libc.so.6')
        library.mallopt, library.malloc_trim  # noqa: B018  other C libraries have neither
    except (OSError, AttributeError):
        return None
    return library
