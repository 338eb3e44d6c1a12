"""Ends a training that is stuck, and says where: in which process, and on which videos."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from amuse_jax import hosts, shards

STUCK = 70  # exit status, EX_SOFTWARE of sysexits.h; launches start again


class Watchdog:
    """Inside, looks whether the training gets from place to place.

    Args:
      folder: of the training; with several processes each says there where it is, since one that is
        stuck stops all the others.
      limit: seconds in one place that are too many; 0: none are.
      reading: names what is being read, with seconds, for a training that waits for data.
    """

    def __init__(self, folder: Path, limit: float, reading: Callable[[], list[str]]):
        self._folder, self._limit, self._reading = folder / 'hosts', limit, reading
        self._place, self._since = 'the start', time.monotonic()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> 'Watchdog':
        if self._limit:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_closed.set()
        if self._limit:
            self._thread.join()

    def at(self, place: str) -> None:
        """The training has come to `place`."""
        self._place, self._since = place, time.monotonic()

    def _watch(self) -> None:
        while not self._is_closed.wait(min(self._limit / 4, 10)):
            seconds = time.monotonic() - self._since
            place = f'{shards.this_process()}, for {seconds:.0f} s at {self._place}'
            if hosts.count() > 1:
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / str(hosts.index())).write_text(place)
            if seconds > self._limit:
                self._end(place)

    def _end(self, place: str) -> None:
        lines = [f'amuse_jax: stuck (loop.stuck_seconds is {self._limit:g}): {place}']
        lines += [f'  reads {what}' for what in self._reading()]
        lines += self._others()
        lines.append('the same command goes on from the newest checkpoint. What the threads do:')
        print('\n'.join(lines), file=sys.stderr, flush=True)
        faulthandler.dump_traceback()
        os._exit(STUCK)

    def _others(self) -> list[str]:
        """Where the other processes said they were, and how long ago."""
        found = []
        for index in sorted(set(range(hosts.count())) - {hosts.index()}):
            path = self._folder / str(index)
            try:
                age, text = time.time() - path.stat().st_mtime, path.read_text()
                found.append(f'  process {index} said {age:.0f} s ago: {text}')
            except OSError:
                found.append(f'  process {index} never said where it is')
        return found
