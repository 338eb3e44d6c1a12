"""Metrics of a run as JSON lines and TensorBoard events, without gaps or repeats after a resume."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

# tensorboard's own writer: tensorboardX imports torch wherever it is installed.
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from amuse_jax.system import hosts


class MetricsWriter:
    """Appends to `FOLDER/metrics.jsonl` and to the events in `FOLDER/tensorboard`; of several hosts
    the first does.

    Args:
      folder: the stage's folder.
      lines: how many lines of an earlier run to keep: the number its checkpoint was saved with.
        What a killed run wrote after that checkpoint is cut off, because it is about to be written
        again.
      step: the step that the run goes on from.

    Raises:
      OSError: the folder can't be written.
    """

    def __init__(self, folder: Path, lines: int = 0, step: int = 0):
        self.lines = lines
        if not hosts.is_first():
            return
        self.path = folder / 'metrics.jsonl'
        kept = self.path.read_text().splitlines(keepends=True)[:lines] if lines else []
        self.lines = len(kept)
        beside = self.path.with_suffix('.tmp')
        beside.write_text(''.join(kept))
        beside.replace(self.path)
        self._file = open(self.path, 'a')
        self._events = EventFileWriter(str(folder / 'tensorboard'))
        # Tells TensorBoard to forget what a killed run wrote from this step on.
        self._add_event(step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One line, `{"step", "epoch", **values}`; each value is a TensorBoard scalar of its
        name."""
        self.lines += 1
        if not hosts.is_first():
            return
        self._file.write(json.dumps({'step': step, 'epoch': epoch, **values}) + '\n')
        self._file.flush()
        scalars = [Summary.Value(tag=name, simple_value=v) for name, v in values.items()]
        self._add_event(step, summary=Summary(value=scalars))

    def sync(self) -> None:
        """Returns once every line is on the disk: a checkpoint must not know of lines that are
        not."""
        if hosts.is_first():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if hosts.is_first():
            self._file.close()
            self._events.close()

    def _add_event(self, step: int, **content) -> None:
        self._events.add_event(Event(step=step, wall_time=time.time(), **content))
