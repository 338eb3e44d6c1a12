"""Paths that a user gives: in settings, flags and arguments."""

import re
from pathlib import Path

from amuse_jax.errors import StageError

_ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+:/')


def from_user(text: str, name: str) -> Path:
    """Return a path that a user gave, with `~` and `~user` replaced by the home folder.

    Args:
      text: the path as it was given.
      name: the flag or setting, for messages.

    Raises:
      StageError: the text is an address such as gs://BUCKET/DIR, there is no such home folder, or
        the path is not UTF-8.
    """
    if _ADDRESS.match(text):
        raise StageError(
            f'{name} is {text!r}; expected a folder or file of this machine. Runs lock, rename and '
            'memory-map their files, which object stores cannot do: mount a shared file system '
            '(NFS, Filestore, Lustre) and name its path; to read data from a bucket, mount it '
            'first (gcsfuse)'
        )
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise StageError(
            f'{name} is {text!r}, and the home folder of its user is unknown ({error}); expected a '
            'path without ~'
        ) from error
    if not is_utf_8(str(path.absolute())):
        raise StageError(
            f'{name} is {text!a}, and the name {str(path.absolute())!a} is not UTF-8, which the '
            'files of a run and the libraries that open them need; rename the file or folder'
        )
    return path


def is_utf_8(text: str) -> bool:
    """Return whether a text from the command line was UTF-8; Python escapes other bytes in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
