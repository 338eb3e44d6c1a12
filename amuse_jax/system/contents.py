"""Size, time and hash of a file or folder, to tell whether it has changed.

The entry of a file or folder is the list [size in bytes, time of the last change in ns, SHA-256].
A file whose size and time are unchanged is not read again.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

Entry = list  # [size, time_ns, sha256]


def measure(path: Path, known: Sequence | None = None, pattern: str = '*') -> Entry | None:
    """Return the entry of a file or folder; None if it does not exist or cannot be read.

    Args:
      path: the file or folder. A folder counts with all files in it, also in folders below.
      known: an earlier entry. Its hash is taken over if size and time are still the same.
      pattern: which files in a folder count, such as '*.json'.
    """
    size_and_time = stat(path, pattern)
    if size_and_time is None:
        return None
    if known is not None and size_and_time == tuple(known[:2]):
        return list(known)
    try:
        return [*size_and_time, _hash(path.resolve(), pattern, *size_and_time)]
    except OSError:
        return None


def stat(path: Path, pattern: str = '*') -> tuple[int, int] | None:
    """Return the size and the time in ns of a file, or of the files in a folder together.

    None if there is no such file, or no file that counts in the folder.
    """
    try:
        states = [file.stat() for file in _files(path, pattern)]
        folders = [path, *path.rglob('*/')] if path.is_dir() else []  # a new name changes these
        times = [folder.stat().st_mtime_ns for folder in folders]
    except OSError:
        return None
    if not states:
        return None
    times += [state.st_mtime_ns for state in states]
    return sum(state.st_size for state in states), max(times)


@functools.cache
def _hash(path: Path, pattern: str, size: int, time_ns: int) -> str:
    """Return the SHA-256 of a file, or of the names and contents of the files in a folder.

    Size and time belong to the key of the cache, so that a changed file is read again.
    """
    if path.is_file():
        return _hash_file(path)
    digest = hashlib.sha256()
    for file in _files(path, pattern):
        digest.update(f'{file.relative_to(path).as_posix()} {_hash_file(file)}\n'.encode())
    return digest.hexdigest()


def _hash_file(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _files(path: Path, pattern: str) -> list[Path]:
    """Return the regular files of a folder, or the file itself; never a pipe or a device."""
    return sorted(p for p in (path.rglob(pattern) if path.is_dir() else [path]) if p.is_file())
