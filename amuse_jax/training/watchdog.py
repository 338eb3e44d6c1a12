"""A watchdog that ends a stuck run and reports the process and the videos it is stuck at."""

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

STUCK = 70  # exit status, EX_SOFTWARE of sysexits.h; the launch scripts then start again
OTHERS_SECONDS = 5.0  # limit for reading the reports of other processes; the disk may be stuck too


class Watchdog:
    """A context manager that ends the process if `heartbeat` is not called in time.

    Args:
      folder: the folder of the work. If there are several processes, each writes its position into
        `folder`/hosts, because one stuck process stops all others.
      limit: seconds that the work may stay at one place; 0: no limit.
      video_ids: the video id of each record, to name the videos that are being read.
    """

    def __init__(self, folder: Path, limit: float, video_ids: Sequence[str]):
        self._folder, self._limit, self._video_ids = folder / 'hosts', limit, video_ids
        self._is_closed = threading.Event()
        self._watch_thread = threading.Thread(target=self._watch, daemon=True)
        # A second thread writes the reports, so that the watch thread never waits for the disk.
        self._report_thread = threading.Thread(target=self._write_reports, daemon=True)
        self.heartbeat('the start')

    def __enter__(self) -> 'Watchdog':
        if self._limit:
            self.heartbeat('the start')
            self._watch_thread.start()
            if hosts.count() > 1:
                self._report_thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_closed.set()
        if self._limit:
            self._watch_thread.join()

    def heartbeat(self, place: str) -> None:
        """Report that the work has reached `place`, for example 'step 3'."""
        self._place = place, time.monotonic()

    def _wait_for_next_check(self) -> bool:
        """Wait until the next check is due; return False if the watchdog was closed meanwhile."""
        return not self._is_closed.wait(min(self._limit / 4, 10))

    def _position(self) -> tuple[str, float]:
        """Return a description of this process and its place, and the seconds it has been there."""
        place, since = self._place
        seconds = time.monotonic() - since
        return f'{this_process()}, for {seconds:.0f} s at {place}', seconds

    def _watch(self) -> None:
        while self._wait_for_next_check():
            position, seconds = self._position()
            if seconds > self._limit:
                self._end_process(position)

    def _write_reports(self) -> None:
        while self._wait_for_next_check():
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / str(hosts.index())).write_text(self._position()[0], 'utf-8')

    def _end_process(self, position: str) -> None:
        _print(f'amuse_jax: stuck (loop.stuck_seconds is {self._limit:g}): {position}')
        for record, seconds in pipeline.reads_in_progress():
            _print(f'  reads {self._video_ids[record]}, for {seconds:.0f} s')
        others = threading.Thread(target=self._print_other_reports, daemon=True)
        others.start()
        others.join(OTHERS_SECONDS)
        _print('the same command continues from what is saved. Stacks of all threads:')
        faulthandler.dump_traceback()
        os._exit(STUCK)

    def _print_other_reports(self) -> None:
        """Print the last reported position of every other process, and the age of the report."""
        for index in sorted(set(range(hosts.count())) - {hosts.index()}):
            path = self._folder / str(index)
            try:
                age, text = time.time() - path.stat().st_mtime, path.read_text('utf-8')
                _print(f'  process {index} said {age:.0f} s ago: {text}')
            except OSError:
                _print(f'  process {index} never said where it is')


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
