"""Ends a run that is stuck, and says where: in which process, and on which videos."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from amuse_jax.data import pipeline
from amuse_jax.system import hosts
from amuse_jax.system.processes import this_process

STUCK = 70  # exit status, EX_SOFTWARE of sysexits.h; launches start again
OTHERS_SECONDS = 5.0  # to read what the others said; the disk may be what hangs


class Watchdog:
    """Inside, looks whether the work gets from place to place.

    Args:
      folder: of the work; with several processes each says there where it is, since one that is
        stuck stops all the others.
      limit: seconds in one place that are too many; 0: none are.
      video_ids: by record, to name what is being read when it ends.
    """

    def __init__(self, folder: Path, limit: float, video_ids: Sequence[str]):
        self._folder, self._limit, self._video_ids = folder / 'hosts', limit, video_ids
        self._is_closed = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        # Apart: who watches never waits for the disk.
        self._telling = threading.Thread(target=self._tell, daemon=True)
        self.at('the start')

    def __enter__(self) -> 'Watchdog':
        if self._limit:
            self.at('the start')
            self._watching.start()
            if hosts.count() > 1:
                self._telling.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_closed.set()
        if self._limit:
            self._watching.join()

    def at(self, place: str) -> None:
        """The work has come to `place`."""
        self._place = place, time.monotonic()

    def _pauses(self) -> bool:
        """Waits until it is time to look again; False: there is nothing to look at any more."""
        return not self._is_closed.wait(min(self._limit / 4, 10))

    def _here(self) -> tuple[str, float]:
        """This process and its place, and for how many seconds it has been there."""
        place, since = self._place
        seconds = time.monotonic() - since
        return f'{this_process()}, for {seconds:.0f} s at {place}', seconds

    def _watch(self) -> None:
        while self._pauses():
            here, seconds = self._here()
            if seconds > self._limit:
                self._end(here)

    def _tell(self) -> None:
        while self._pauses():
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / str(hosts.index())).write_text(self._here()[0])

    def _end(self, here: str) -> None:
        _say(f'amuse_jax: stuck (loop.stuck_seconds is {self._limit:g}): {here}')
        for record, seconds in pipeline.reads():
            _say(f'  reads {self._video_ids[record]}, for {seconds:.0f} s')
        asking = threading.Thread(target=self._say_others, daemon=True)
        asking.start()
        asking.join(OTHERS_SECONDS)
        _say('the same command goes on from what is saved. What the threads do:')
        faulthandler.dump_traceback()
        os._exit(STUCK)

    def _say_others(self) -> None:
        """Where the other processes said they were, and how long ago."""
        for index in sorted(set(range(hosts.count())) - {hosts.index()}):
            path = self._folder / str(index)
            try:
                age, text = time.time() - path.stat().st_mtime, path.read_text()
                _say(f'  process {index} said {age:.0f} s ago: {text}')
            except OSError:
                _say(f'  process {index} never said where it is')


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
