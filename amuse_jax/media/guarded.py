"""Files of strangers are read in a process of their own, which may hang, die or swell.

FFmpeg's decoders are C that strangers' bytes drive: a damaged file can make one of them run for
ever, crash, or take all memory. One process reads file after file; when one of them breaks it,
another takes its place, and only that file is lost. What comes back are the bytes of arrays:
nothing that was near such a file is unpickled.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amuse_jax.media.container import MediaError
from amuse_jax.system.processes import end_with_parent

PROCESS = 'reader of video files'

_START_SECONDS = 300.0  # to import NumPy and PyAV from a slow disk, on a busy machine
_END_SECONDS = 5.0  # a process that waits for a dead disk does not even end when it is killed


@dataclasses.dataclass(frozen=True)
class Limits:
    """What reading one file's picture or sound may take.

    Attributes:
      seconds: of time.
      gigabytes: of memory (1e9 bytes of address space), beyond what an idle reader has.
    """

    seconds: float
    gigabytes: float

    @classmethod
    def from_settings(cls, settings: ConfigDict) -> 'Limits':
        """From the section `data` of the config."""
        return cls(settings.read_seconds, settings.read_gigabytes)


class Reader:
    """Calls functions in another process, one at a time; starts it when it is needed.

    Args:
      limits: of every call.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._process: multiprocessing.Process | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> 'Reader':
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def read(self, function: Callable, *arguments) -> list[np.ndarray]:
        """What `function(*arguments)` returns in the other process.

        A reader that dies may have been ruined by a file before: the last one is read once more
        by a new reader, and lost only if that dies too.

        Args:
          function: of a module, such as `video.read_audio`; returns arrays and numbers.

        Returns:
          Them, as arrays that cannot be written to.

        Raises:
          MediaError: from `function`, or the file takes longer or more memory than the limits
            allow, or its reader died.
          RuntimeError: no process can be started.
        """
        is_new = self._process is None
        if is_new:
            self._start()
        try:
            return self._ask(function, arguments)
        except (EOFError, OSError):  # the pipe's other end is gone
            reason = self._death()
            self.close()
            if is_new:
                raise MediaError(reason) from None
        return self.read(function, *arguments)

    def close(self) -> None:
        """Ends the process; the next call starts another one."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_END_SECONDS)
            self._pipe.close()
            self._process = None

    def _ask(self, function: Callable, arguments: tuple) -> list[np.ndarray]:
        self._pipe.send((function, arguments))
        if not self._pipe.poll(self._limits.seconds):
            self.close()
            raise MediaError(f'reading it took longer than {self._limits.seconds:g} s')
        reply = json.loads(self._pipe.recv_bytes())
        if 'reason' in reply:
            raise MediaError(reply['reason'])
        return [
            np.frombuffer(self._pipe.recv_bytes(), kind).reshape(shape)
            for kind, shape in reply['arrays']
        ]

    def _start(self) -> None:
        context = multiprocessing.get_context('spawn')  # fork is unsafe once JAX has threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._limits), name=PROCESS, daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            ready = self._pipe.poll(_START_SECONDS) and self._pipe.recv_bytes()
        except EOFError:
            ready = b''
        if not ready:
            self.close()
            raise RuntimeError(
                'the process that reads video files does not start; what it wrote above says why'
            )

    def _death(self) -> str:
        self._process.join(_END_SECONDS)
        status = self._process.exitcode
        if status is not None and status < 0:
            return f'its reader was killed by signal {-status} ({signal.strsignal(-status)})'
        return f'its reader ended with exit status {status}'


def shared(limits: Limits) -> Reader:
    """This process's reader with these limits, which lives on from shard to shard.

    It ends with this process, or by `close_shared`.
    """
    return _SHARED.setdefault(limits, Reader(limits))


def close_shared() -> None:
    """Ends what `shared` has left running in this process."""
    while _SHARED:
        _SHARED.popitem()[1].close()


_SHARED: dict[Limits, Reader] = {}


def _serve(pipe: Connection, limits: Limits) -> None:
    """What the other process does: an error that is no MediaError ends it, with a traceback."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    _limit_memory(limits.gigabytes)
    pipe.send_bytes(b'ready')
    with contextlib.suppress(EOFError):  # the parent is done
        while True:
            function, arguments = pipe.recv()  # from the parent, which reads no such files
            _reply(pipe, function, arguments, limits)


def _reply(pipe: Connection, function: Callable, arguments: tuple, limits: Limits) -> None:
    try:
        arrays = [np.asarray(value, order='C') for value in function(*arguments)]
    except MediaError as error:
        arrays, reply = [], {'reason': error.reason}
    except MemoryError:
        reason = f'reading it takes more than {limits.gigabytes:g} GB of memory'
        arrays, reply = [], {'reason': reason}
    else:
        reply = {'arrays': [(array.dtype.str, array.shape) for array in arrays]}
    pipe.send_bytes(json.dumps(reply).encode())
    for array in arrays:
        pipe.send_bytes(memoryview(array).cast('B'))


def _limit_memory(gigabytes: float) -> None:
    """Of this process from now on; where the system has no such limit, it stays without."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path('/proc/self/statm').read_text().split()[0])
        limit = pages * resource.getpagesize() + int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
