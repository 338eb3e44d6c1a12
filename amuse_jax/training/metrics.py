"""Metrics as JSON lines and TensorBoard events, without gaps or duplicates after a resume."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

# The writer of tensorboard itself, because tensorboardX imports torch if it is installed.
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from amuse_jax.system import hosts
from amuse_jax.system.files import write_atomically


class MetricsWriter:
    """Appends to `FOLDER/metrics.jsonl` and to the events in `FOLDER/tensorboard`.

    Only the first host writes.

    Args:
      folder: the stage's folder.
      lines: number of lines to keep from an earlier run: the number saved in its checkpoint. Later
        lines of a killed run are removed, because the resumed run writes them again.
      step: the step from which the run continues.

    Raises:
      OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, lines: int = 0, step: int = 0):
        self.lines = lines
        if not hosts.is_first():
            return
        self.path = folder / 'metrics.jsonl'
        kept = self.path.read_text('utf-8').splitlines(keepends=True)[:lines] if lines else []
        self.lines = len(kept)
        text = ''.join(kept)
        write_atomically(self.path, lambda temporary: temporary.write_text(text, 'utf-8'))
        self._file = open(self.path, 'a', encoding='utf-8')
        self._events = EventFileWriter(str(folder / 'tensorboard'))
        # Makes TensorBoard discard what a killed run wrote from this step on.
        self._add_event(step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Write the line `{"step", "epoch", **values}`, and each value as a TensorBoard scalar."""
        self.lines += 1
        if not hosts.is_first():
            return
        self._file.write(json.dumps({'step': step, 'epoch': epoch, **values}) + '\n')
        self._file.flush()
        scalars = [Summary.Value(tag=name, simple_value=v) for name, v in values.items()]
        self._add_event(step, summary=Summary(value=scalars))

    def sync(self) -> None:
        """Wait until every line is on the disk.

        A checkpoint saves the number of lines, so it must not count lines that could still be lost.
        """
        if hosts.is_first():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        if hosts.is_first():
            self._file.close()
            self._events.close()

    def _add_event(self, step: int, **content) -> None:
        self._events.add_event(Event(step=step, wall_time=time.time(), **content))
