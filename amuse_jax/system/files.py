"""Files that appear whole or not at all, durable renames, and a full disk as one sentence.

`write_atomically` is our own because other programs fill the file: it gives them a name with the
right ending, where a library such as atomicwrites gives an open file.
"""

import contextlib
import errno
import json
import math
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from amuse_jax.errors import StageError

FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it to `path`.

    Several processes, also on several machines, may do so at once with the same content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name keeps its ending, because some writers choose the format by it.
    temporary = path.with_name(f'.tmp-{uuid.uuid4().hex[:16]}-{path.name}')
    try:
        write(temporary)
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: Path, max_bytes: int, seconds: float) -> bytes:
    """Read a file from outside, which may be anything.

    Args:
      path: the file.
      max_bytes: largest size of the file.
      seconds: longest time to read it, for a disk that does not answer.

    Raises:
      OSError: it cannot be read, is no regular file, is larger, or reading takes longer.
    """
    if not path.is_file() and path.exists():  # opening a pipe would wait for its writer
        raise OSError('it is a folder, a pipe or a device, not a file')
    result: list[bytes | OSError] = []

    def read() -> None:
        try:
            with open(path, 'rb') as file:
                result.append(file.read(max_bytes + 1))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(seconds)
    if not result:
        raise OSError(f'reading it takes longer than {seconds:g} s')
    if isinstance(result[0], OSError):
        raise result[0]
    if len(result[0]) > max_bytes:
        raise OSError(f'it has more than {max_bytes:,} bytes')
    return result[0]


def rename(path: Path, target: Path) -> None:
    """Rename a file or folder so that a loss of power leaves either the old name or the new one.

    A file's content is on the disk before it gets the name, and so is the name when this returns.
    A file that has the name is replaced.
    """
    if path.is_file():
        _sync(path)
    os.replace(path, target)
    for folder in {path.parent, target.parent}:
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems cannot do this for a folder
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP) or path.is_file():
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, value) -> None:
    """Write JSON atomically; numbers that are not finite become null, because JSON has none."""
    text = json.dumps(_finite(value), indent=1, allow_nan=False) + '\n'
    write_atomically(path, lambda temporary: temporary.write_text(text, 'utf-8'))


def _finite(value):
    """Return a JSON value with None in the place of every NaN and infinite number."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    for leftover in folder.glob('.tmp-*'):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_as_error(name: str, folder: Path) -> Iterator[None]:
    """Turn the various errors of a full disk into one `StageError`.

    Args:
      name: what fills the folder, such as a stage; the message begins with it.
      folder: the folder that is filled inside the context.

    Raises:
      StageError: the disk or its quota is full.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # which one depends on the writer
        full = [text for text in map(os.strerror, FULL) if text in str(error)]
        if not full:
            raise
        raise StageError(
            f'{name} stopped: no space is left on the disk of {folder} ({full[0]}); make room and '
            'start the same command again to go on from what is saved'
        ) from error
