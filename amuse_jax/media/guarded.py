"""Untrusted files are read in a separate process, with limits of time and memory.

FFmpeg's decoders are written in C, and a damaged file can make one of them hang, crash or use up
all memory. One process reads file after file. When a file breaks it, a new process replaces it, and
only that file is lost. The process sends back the raw bytes of arrays, so nothing that it computed
from such a file is ever unpickled.
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

PROCESS_NAME = 'reader of video files'

# Longest time to start: importing NumPy and PyAV from a slow disk, on a busy machine.
_START_SECONDS = 300.0
# Longest wait for a killed process to end. One that waits for a dead disk does not end at all.
_END_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits for reading the picture or the sound of one file.

    Attributes:
      seconds: maximum time.
      gigabytes: maximum memory (1e9 bytes of address space), on top of an idle reader's.
    """

    seconds: float
    gigabytes: float

    @classmethod
    def from_settings(cls, settings: ConfigDict) -> 'Limits':
        """Create the limits from the section `data` of the config."""
        return cls(settings.read_seconds, settings.read_gigabytes)


class Reader:
    """Calls functions in another process, one at a time, and starts that process when needed.

    Args:
      limits: limits for each call.
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
        """Call `function(*arguments)` in the other process.

        If the process dies, an earlier file may have damaged it. So the file is read once more by
        a new process, and is given up only if that one dies too.

        Args:
          function: a module-level function that returns arrays and numbers, such as
            `video.read_audio`.
          *arguments: its arguments.

        Returns:
          The results, as read-only arrays.

        Raises:
          MediaError: `function` raised it, reading exceeded a limit, or the process died.
          RuntimeError: no process can be started.
        """
        is_new = self._process is None
        if is_new:
            self._start()
        try:
            return self._request(function, arguments)
        except (EOFError, OSError):  # the other end of the pipe is closed
            reason = self._describe_death()
            self.close()
            if is_new:
                raise MediaError(reason) from None
        return self.read(function, *arguments)

    def close(self) -> None:
        """End the process; the next call starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_END_SECONDS)
            self._pipe.close()
            self._process = None

    def _request(self, function: Callable, arguments: tuple) -> list[np.ndarray]:
        self._pipe.send((function, arguments))
        if not self._pipe.poll(self._limits.seconds):
            self.close()
            raise MediaError(f'reading it took longer than {self._limits.seconds:g} s')
        reply = json.loads(self._pipe.recv_bytes())
        if 'reason' in reply:
            raise MediaError(reply['reason'])
        return [
            np.frombuffer(self._pipe.recv_bytes(), dtype).reshape(shape)
            for dtype, shape in reply['arrays']
        ]

    def _start(self) -> None:
        context = multiprocessing.get_context('spawn')  # fork is unsafe once JAX has threads
        self._pipe, child_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child_end, self._limits), name=PROCESS_NAME, daemon=True
        )
        self._process.start()
        child_end.close()
        try:
            ready = self._pipe.poll(_START_SECONDS) and self._pipe.recv_bytes()
        except EOFError:
            ready = b''
        if not ready:
            self.close()
            raise RuntimeError(
                'the process that reads video files does not start; its messages above say why'
            )

    def _describe_death(self) -> str:
        self._process.join(_END_SECONDS)
        status = self._process.exitcode
        if status is not None and status < 0:
            return f'its reader was killed by signal {-status} ({signal.strsignal(-status)})'
        return f'its reader ended with exit status {status}'


def shared_reader(limits: Limits) -> Reader:
    """Return this process's reader with these limits, so that successive shards share one.

    It ends with this process or with `close_shared_readers`.
    """
    return _SHARED.setdefault(limits, Reader(limits))


def close_shared_readers() -> None:
    """End all readers that `shared_reader` has returned in this process."""
    while _SHARED:
        _SHARED.popitem()[1].close()


_SHARED: dict[Limits, Reader] = {}


def _serve(pipe: Connection, limits: Limits) -> None:
    """Answer requests in the other process.

    Any error that is not a MediaError ends the process, with a traceback.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    _limit_memory(limits.gigabytes)
    pipe.send_bytes(b'ready')
    with contextlib.suppress(EOFError):  # the parent closed the pipe
        while True:
            # This unpickles data of the parent, which never reads an untrusted file itself.
            function, arguments = pipe.recv()
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
    """Limit the memory that this process may allocate from now on.

    On a system without such a limit nothing happens.
    """
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path('/proc/self/statm').read_text('utf-8').split()[0])
        limit = pages * resource.getpagesize() + int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
