"""The number of CPUs that this process may use.

`os.cpu_count` counts the CPUs of the machine. A batch job or a container usually gets fewer of
them, by affinity or by a quota of its control group.
"""

import math
import os
from pathlib import Path

from amuse_jax.system import control_groups


def usable(root: Path = Path('/')) -> int:
    """Return the number of CPUs that this process may use, at least 1.

    This is the number of CPUs in its affinity mask, or less if a control group (version 1 or 2)
    has a quota of CPU time. A quota of 2.5 CPUs counts as 3.

    Args:
      root: the root of the file system; tests use another one.
    """
    has_affinity = hasattr(os, 'sched_getaffinity')
    count = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quotas = (_quota(folder, version) for folder, version in control_groups.folders('cpu', root))
    return max(1, min([count, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _quota(folder: Path, version: int) -> float | None:
    """Return the number of CPUs whose time a control group may use, or None without a limit."""
    if version == 1:
        quota = control_groups.read(folder / 'cpu.cfs_quota_us').strip()
        period = control_groups.read(folder / 'cpu.cfs_period_us').strip()
    else:
        quota, _, period = control_groups.read(folder / 'cpu.max').strip().partition(' ')
    if not quota.isdigit() or not period.isdigit() or int(quota) * int(period) == 0:
        return None  # no such file, or no limit: 'max' in version 2, -1 in version 1
    return int(quota) / int(period)
