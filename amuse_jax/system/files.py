"""Files that appear whole or not at all, durable renames, and a full disk as one sentence.

`write_atomically` is our own because other programs fill the file: it gives them a name with the
right ending, where a library such as atomicwrites gives an open file.
"""

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator
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
    """Write JSON atomically."""
    text = json.dumps(value, indent=1) + '\n'
    write_atomically(path, lambda temporary: temporary.write_text(text))


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
