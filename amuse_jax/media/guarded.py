"""Untrusted files are read in a separate process, with limits of time and memory.

FFmpeg's decoders are written in C, and a damaged file can make one of them hang, crash or use up
all memory. One process reads file after file. When a file breaks it, a new process replaces it, and
only that file is lost. The process sends back the raw bytes of arrays, so nothing that it computed
from such a file is ever unpickled. A file might take control of the process, so its replies have a
limited size and must arrive in time.
"""

import contextlib
import dataclasses
import json
import math
import multiprocessing
import resource
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amuse_jax.media.container import MediaError
from amuse_jax.system.processes import end_with_parent, without_main_module

PROCESS_NAME = 'reader of video files'

# Longest time to start: importing NumPy and PyAV from a slow disk, on a busy machine.
_START_SECONDS = 300.0
# Longest wait for a killed process to end. One that waits for a dead disk does not end at all.
_END_SECONDS = 5.0
_LONGEST_HEADER = 65_536  # bytes; a header names the arrays of a reply, or holds a reason
_LONGEST_REASON = 1000  # characters
_MOST_ARRAYS = 16
_DTYPES = frozenset(np.dtype(code).str for code in '?' + np.typecodes['AllInteger'] + 'efd')


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


class _BadReply(Exception):
    """The process sent something that `_reply` does not send."""


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
            `audio.read_audio`.
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
        deadline = time.monotonic() + self._limits.seconds
        # A process that stops in the middle of a message is killed, which ends `recv_bytes`.
        timer = threading.Timer(self._limits.seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            self._pipe.send((function, arguments))
            return self._receive_reply(deadline)
        except (EOFError, OSError) as error:
            if not isinstance(error, TimeoutError) and time.monotonic() < deadline:
                raise
            self.close()
            raise MediaError(f'reading it took longer than {self._limits.seconds:g} s') from None
        except _BadReply as error:
            self.close()
            raise MediaError(f'its reader sent {error}') from None
        finally:
            timer.cancel()

    def _receive_reply(self, deadline: float) -> list[np.ndarray]:
        try:
            reply = json.loads(self._receive(_LONGEST_HEADER, deadline))
            reason = reply.get('reason')
            arrays = [(dtype, tuple(map(int, shape))) for dtype, shape in reply.get('arrays', ())]
            is_plain = all(
                dtype in _DTYPES and min(shape, default=0) >= 0 for dtype, shape in arrays
            )
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise _BadReply('a reply that cannot be read') from None
        if isinstance(reason, str):
            raise MediaError(reason)
        if not is_plain:
            raise _BadReply('something else than arrays')
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in arrays]
        if len(sizes) > _MOST_ARRAYS or sum(sizes) > self._limits.gigabytes * 1e9:
            raise _BadReply('arrays that are too large')
        received = []
        for (dtype, shape), size in zip(arrays, sizes):
            content = self._receive(size, deadline)
            if len(content) != size:
                raise _BadReply('an array of another size than it announced')
            try:
                received.append(np.frombuffer(content, dtype).reshape(shape))
            except ValueError:  # too many dimensions, or a huge one beside one of 0
                raise _BadReply('an array of an impossible shape') from None
        return received

    def _receive(self, size: int, deadline: float) -> bytes:
        """Receive one message of at most `size` bytes."""
        if not self._pipe.poll(max(deadline - time.monotonic(), 0)):
            raise TimeoutError
        try:
            return self._pipe.recv_bytes(size)
        except OSError as error:
            if str(error) == 'bad message length':  # multiprocessing's, for a longer message
                raise _BadReply('a message that is too long') from None
            raise

    def _start(self) -> None:
        context = multiprocessing.get_context('spawn')  # fork is unsafe once JAX has threads
        self._pipe, child_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child_end, self._limits), name=PROCESS_NAME, daemon=True
        )
        with without_main_module():
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


def read(limits: Limits, function: Callable, *arguments) -> list[np.ndarray]:
    """Call `function(*arguments)` in one of this process's readers; see `Reader.read`.

    Later calls use the same reader again. Several threads may call this at once; each gets a reader
    of its own. The readers end with this process or with `close_readers`.
    """
    idle = _IDLE.setdefault(limits, [])
    try:
        reader = idle.pop()
    except IndexError:
        reader = Reader(limits)
    try:
        return reader.read(function, *arguments)
    finally:
        idle.append(reader)


def close_readers() -> None:
    """End all readers that `read` has started in this process. No thread may be using one."""
    for reader in (each for idle in _IDLE.values() for each in idle):
        reader.close()
    _IDLE.clear()


_IDLE: dict[Limits, list[Reader]] = {}  # readers that no thread uses now


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
        arrays, reply = [], {'reason': error.reason[:_LONGEST_REASON]}
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
