"""What `shards.map_files` does in processes, as an Apache Beam pipeline: on many machines.

Every worker has amuse_jax installed and sees the data set and the workdir under the same paths as
this process, as on a shared disk. A file appears whole or not at all and is not made again, so a
bundle of work that a runner repeats, on another machine or beside itself, does no harm.
"""

import pickle
import shlex
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import apache_beam
from absl import logging
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from amuse_jax.errors import StageError
from amuse_jax.system.files import remove_unfinished, write_atomically
from amuse_jax.system.processes import this_process

# The work is made for processes; a runner's workers may be threads of one.
_ONE_AT_A_TIME = threading.Lock()


def map_files(
    work: Callable[[Sequence, Path], None],
    todo: Sequence[tuple[Sequence, Path]],
    options: str,
    description: str,
) -> None:
    """Runs `work(group, file_to_write)` for every (group, path), wherever the runner likes.

    Args:
      work: a module-level function or a partial of one; writes the file it is given.
      todo: groups and the files they become, all in one folder that is there.
      options: of the pipeline, as on a command line: '--runner=FlinkRunner --flink_master=...'.
        Without a runner the work is done by Beam in this process.
      description: of the work, for messages.

    Raises:
      StageError: Beam refuses the options; the first that `work` raised; or files are missing in
        the end.
      RuntimeError: whatever else stopped the pipeline, as Beam tells it.
    """
    folder = todo[0][1].parent
    logging.info('%s: %d files by Apache Beam (%s)', description, len(todo), options)
    with _pipeline(options) as pipeline:
        _ = (
            pipeline
            # As bytes, which every coder takes as they are, and no larger than they must be: the
            # whole list travels with the pipeline.
            | apache_beam.Create([zlib.compress(pickle.dumps(each)) for each in todo])
            | apache_beam.Reshuffle()  # else one worker would keep all that it has listed
            | description >> apache_beam.Map(_make_file, work)
        )
    mistakes = sorted(folder.glob(f'{_MISTAKE}*'))
    if mistakes:
        raise StageError(mistakes[0].read_text())
    remove_unfinished(folder)  # of workers that a runner has stopped
    missing = [path for _, path in todo if not path.exists()]
    if missing:
        raise StageError(
            f'{description}: the Beam pipeline has ended, but {missing[0].name} and '
            f'{len(missing) - 1} more files are not in {folder}; every worker must see this folder '
            'under this path. Start the same command again to go on'
        )


_MISTAKE = '.tmp-mistake-'


def _make_file(element: bytes, work: Callable[[Sequence, Path], None]) -> None:
    """What a worker does with one element."""
    group, path = pickle.loads(zlib.decompress(element))
    if not path.parent.is_dir():
        raise StageError(
            f'the worker {this_process()} does not see {path.parent}; every worker of the '
            'Beam pipeline must see the workdir and the data set under the same paths'
        )
    with _ONE_AT_A_TIME:
        if path.exists():  # a repeated bundle
            return
        try:
            write_atomically(path, lambda beside: work(group, beside))
        except StageError as error:
            # Repeating a user's mistake helps nobody, and not every runner hands on what it raises.
            path.with_name(_MISTAKE + path.name).write_text(str(error))


def _pipeline(options: str) -> apache_beam.Pipeline:
    try:
        parsed = PipelineOptions(shlex.split(options))
        parsed.get_all_options()  # finds out now what argparse refuses
        standard = parsed.view_as(StandardOptions)
        # Beam's own default, DirectRunner, would first try to download another runner.
        standard.runner = standard.runner or 'FnApiRunner'
        return apache_beam.Pipeline(options=parsed)
    except (ValueError, ImportError, SystemExit) as error:
        reason = 'see above' if isinstance(error, SystemExit) else error
        raise StageError(
            f'config.data.beam is {options!r}, which Apache Beam refuses ({reason}); expected '
            "options of a pipeline, such as '--runner=FlinkRunner --flink_master=HOST:8081'"
        ) from error
