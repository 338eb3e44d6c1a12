"""Limits that control groups set for this process: containers, batch jobs and service managers."""

from collections.abc import Iterator
from pathlib import Path


def folders(controller: str, root: Path = Path('/')) -> Iterator[tuple[Path, int]]:
    """Yield the folder of each control group of this process, the innermost first.

    Args:
      controller: the name of the controller in version 1, such as 'memory' or 'cpu'.
      root: the root of the file system; tests use another one.

    Yields:
      The folder, which may not exist, and the version of control groups, 1 or 2.
    """
    for line in read(root / 'proc/self/cgroup').splitlines():
        _, controllers, path = line.split(':', 2)
        if controllers and controller not in controllers.split(','):
            continue
        # Version 2 has no controllers in this line. A container may show its own group as the root.
        top = root / 'sys/fs/cgroup' / (controller if controllers else '')
        group = top / path.strip('/')
        for each in (group, *group.parents) if group != top else (group,):
            yield each, 1 if controllers else 2
            if each == top:
                break


def read(path: Path) -> str:
    """Return the text of a file, or '' if it cannot be read."""
    try:
        return path.read_text('utf-8')
    except OSError:
        return ''
