"""One run at a time in a workdir.

The kernel keeps the lock and frees it when the process is gone, however it ended; the file's text
only says who has it.
"""

import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.system.processes import this_process

FILE = '.lock'


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of the workdir.

    Raises:
      StageError: another run is in there; names it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / FILE, 'a+') as file:  # not 'w': it may be another one's
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise StageError(
                f'{workdir} is in use by {file.read().strip() or "another run"}; wait until it '
                'ends, stop it, or use another --workdir'
            ) from error
        file.truncate(0)
        since = time.strftime('%Y-%m-%d %H:%M:%S')
        file.write(f'process {this_process()} since {since} ({" ".join(sys.argv)})\n')
        file.flush()
        yield
