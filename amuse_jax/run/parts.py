"""Jobs that share the work of a stage: `data.part=3/16` does a sixteenth of its shards.

The jobs run at the same time, on any machines that see the workdir, such as those of a Slurm array.
Each of them writes its own shards and ends. A run without `data.part` then finds all shards there
and puts them together. The jobs take the lock of the workdir one after the other while they prepare
the stage's folder. While they work, each holds a lock of its own, and other runs are refused.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import filelock
from absl import logging
from ml_collections import ConfigDict

from amuse_jax.errors import PartDone, StageError
from amuse_jax.run import lock
from amuse_jax.run.definition import Stage
from amuse_jax.run.stage import run_stage

STAGES = ('prepare', 'annotate', 'rois', 'features')
FOLDER = '.parts'
LONGEST_WAIT = 600.0  # seconds for the other parts to prepare the folder


def check(config: ConfigDict, names: Sequence[str]) -> None:
    """Refuse stages that cannot be shared among jobs.

    Raises:
      StageError: `names` are not `prepare` alone, or some of the other STAGES.
    """
    together = bool(names) and {*names} <= {*STAGES[1:]}
    if config.data.part and not together and list(names) != ['prepare']:
        raise StageError(
            f'config.data.part is {config.data.part!r} and --stages is {",".join(names)!r}; '
            'expected --stages=prepare alone, and when it is complete --stages=annotate,rois (and '
            'features, if the config names arrays of them). '
            'After all parts of a stage, run it without data.part to put them together'
        )


def run(
    config: ConfigDict, workdir: Path, stages: Mapping[str, Stage], names: Sequence[str]
) -> None:
    """Do the part `config.data.part` of the named stages.

    Raises:
      StageError: the same part is already running, or the stage refuses its settings or data.
    """
    with _working(workdir, config.data.part):
        for name in (name for name in STAGES if name in names):
            with contextlib.ExitStack() as preparing:
                preparing.enter_context(_lock_of_workdir(workdir))

                def work(*arguments, stage=stages[name], preparing=preparing):
                    preparing.close()  # the other parts can begin
                    return stage.run(*arguments)

                try:
                    run_stage(dataclasses.replace(stages[name], run=work), config, workdir, stages)
                except PartDone as done:
                    logging.info('%s', done)


def refuse_while_working(workdir: Path) -> None:
    """Refuse a run without `data.part` while jobs with it work in the workdir.

    Raises:
      StageError: such a job is running.
    """
    for path in sorted((workdir / FOLDER).glob('*.lock')):
        part = path.stem.replace('-of-', '/')
        with _held(path, f'the job with data.part={part} still works in {workdir}; wait for it'):
            pass


@contextlib.contextmanager
def _working(workdir: Path, part: str) -> Iterator[None]:
    path = workdir / FOLDER / f'{part.replace("/", "-of-")}.lock'
    with _held(path, f'another job with data.part={part} is working in {workdir}; wait for it'):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock `path`.

    Raises:
      StageError: another process holds it, with the message `refusal`, or it cannot be locked.
    """
    held = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except filelock.Timeout as error:
        raise StageError(refusal) from error
    except (OSError, NotImplementedError) as error:
        raise StageError(
            f'{path} cannot be locked ({error}); jobs with data.part need a --workdir on a file '
            'system with file locks'
        ) from error
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def _lock_of_workdir(workdir: Path) -> Iterator[None]:
    """Hold the lock of the workdir; wait while another part has it."""
    until = time.monotonic() + LONGEST_WAIT
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(lock.held(workdir))
                break
            except lock.InUse:
                if time.monotonic() > until:
                    raise
            time.sleep(0.5)
        yield
