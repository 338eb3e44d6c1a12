"""Per-video work on many machines: `sharded.map_files` as an Apache Beam pipeline.

Every worker must have amuse_jax installed and must see the data set and the workdir under the same
paths as this process, for example on a shared disk. A file appears whole or not at all, and an
existing file is not written again. A runner may therefore repeat a bundle of work, on another
machine or at the same time.
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

# The work is not thread-safe, and some runners use threads of one process as workers.
_ONE_AT_A_TIME = threading.Lock()


def map_files(
    work: Callable[[Sequence, Path], None],
    pending: Sequence[tuple[Sequence, Path]],
    options: str,
    description: str,
) -> None:
    """Run `work(group, file_to_write)` for every (group, path) pair on the pipeline's workers.

    Args:
      work: a module-level function, or a partial of one, that writes the given file.
      pending: pairs of a group and the path of its file; all paths lie in one existing folder.
      options: the pipeline's options, as on a command line, such as '--runner=FlinkRunner
        --flink_master=...'. Without a runner, Beam does the work in this process.
      description: a name of the work for messages.

    Raises:
      StageError: Beam rejects the options, `work` raised a `StageError` (the first one is raised
        again), or files are missing after the pipeline has ended.
      RuntimeError: the pipeline stopped for any other reason; Beam's message says why.
    """
    folder = pending[0][1].parent
    logging.info('%s: %d files by Apache Beam (%s)', description, len(pending), options)
    with _pipeline(options) as pipeline:
        _ = (
            pipeline
            # Every coder passes bytes through unchanged. They are compressed because the whole
            # list travels with the pipeline.
            | apache_beam.Create([zlib.compress(pickle.dumps(each)) for each in pending])
            | apache_beam.Reshuffle()  # else the worker that lists the elements would do them all
            | description >> apache_beam.Map(_write_file, work)
        )
    errors = sorted(folder.glob(f'{_ERROR_PREFIX}*'))
    if errors:
        raise StageError(errors[0].read_text('utf-8'))
    remove_unfinished(folder)  # left by workers that the runner stopped
    missing = [path for _, path in pending if not path.exists()]
    if missing:
        raise StageError(
            f'{description}: the Beam pipeline has ended, but {missing[0].name} and '
            f'{len(missing) - 1} more files are not in {folder}; every worker must see this folder '
            'under this path. Start the same command again to go on'
        )


_ERROR_PREFIX = '.tmp-mistake-'


def _write_file(element: bytes, work: Callable[[Sequence, Path], None]) -> None:
    """Write the file of one compressed, pickled (group, path) pair; a worker calls this."""
    group, path = pickle.loads(zlib.decompress(element))
    if not path.parent.is_dir():
        raise StageError(
            f'the worker {this_process()} does not see {path.parent}; every worker of the '
            'Beam pipeline must see the workdir and the data set under the same paths'
        )
    with _ONE_AT_A_TIME:
        if path.exists():  # the runner repeated a bundle
            return
        try:
            write_atomically(path, lambda temporary: work(group, temporary))
        except StageError as error:
            # A retry cannot fix a user's error, and not every runner passes exceptions on.
            path.with_name(_ERROR_PREFIX + path.name).write_text(str(error), 'utf-8')


def _pipeline(options: str) -> apache_beam.Pipeline:
    try:
        parsed = PipelineOptions(shlex.split(options))
        parsed.get_all_options()  # makes argparse reject wrong options now
        standard = parsed.view_as(StandardOptions)
        # Beam's default, DirectRunner, would first try to download another runner.
        standard.runner = standard.runner or 'FnApiRunner'
        return apache_beam.Pipeline(options=parsed)
    except (ValueError, ImportError, SystemExit) as error:
        reason = 'see above' if isinstance(error, SystemExit) else error
        raise StageError(
            f'config.data.beam is {options!r}, which Apache Beam rejects ({reason}); expected '
            "pipeline options, such as '--runner=FlinkRunner --flink_master=HOST:8081'"
        ) from error
