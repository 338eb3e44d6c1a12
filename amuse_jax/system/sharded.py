"""Per-video work in shards: parallel, resumable, each shard appearing whole or not at all.

This is a thin layer over `concurrent.futures`, because process pools such as joblib's do not resume
by the files that are already there.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from amuse_jax.system.files import remove_unfinished, write_atomically
from amuse_jax.system.processes import end_with_parent


def map_shards(
    work: Callable[[Sequence, Path], None],
    items: Sequence,
    folder: Path,
    *,
    suffix: str,
    shard_size: int,
    workers: int,
    description: str,
    unit: str = 'video',
    beam: str = '',
) -> list[Path]:
    """Run `work(items_of_the_shard, file_to_write)` for every shard that is not in `folder` yet.

    Args:
      work: a module-level function, because it is sent to other processes. It writes the file that
        it is given.
      items: the items, in a fixed order; item i goes to shard i // shard_size.
      folder: folder of the shards, which are called `00003-of-00024<suffix>`.
      suffix: ending of the files, such as '.npz'.
      shard_size: number of items per shard.
      workers: number of processes; 0 for one per core; with 1 the work runs in this process.
      description: name of the progress bar.
      unit: name of one item in the progress bar.
      beam: options of an Apache Beam pipeline that does the work instead; '' for no pipeline.

    Returns:
      The paths of the shards, in order.

    Raises:
      RuntimeError: a worker process died; the message names its shard.
      StageError: see `beam.map_files`.
      Any exception that `work` raises.
    """
    groups = [items[start : start + shard_size] for start in range(0, len(items), shard_size)]
    paths = [folder / f'{index:05d}-of-{len(groups):05d}{suffix}' for index in range(len(groups))]
    map_files(work, groups, paths, workers=workers, description=description, unit=unit, beam=beam)
    return paths


def map_files(
    work: Callable[[Sequence, Path], None],
    groups: Sequence[Sequence],
    paths: Sequence[Path],
    *,
    workers: int,
    description: str,
    unit: str = 'video',
    beam: str = '',
) -> None:
    """Run `work(group, file_to_write)` for every group whose path does not exist yet.

    All paths must be in one folder. The other arguments and the errors are those of `map_shards`.
    """
    if paths:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(paths[0].parent)
    todo = [(group, path) for group, path in zip(groups, paths) if not path.exists()]
    if beam and todo:
        from amuse_jax.system import beam as pipelines  # Apache Beam, an extra

        pipelines.map_files(work, todo, beam, description)
        return
    total = sum(len(group) for group in groups)
    done = total - sum(len(group) for group, _ in todo)
    workers = min(workers or os.cpu_count(), max(len(todo), 1))
    with tqdm(total=total, initial=done, desc=description, unit=unit) as bar:
        if workers == 1:
            for group, path in todo:
                write_atomically(path, lambda temporary, group=group: work(group, temporary))
                bar.update(len(group))
            return
        context = multiprocessing.get_context('spawn')  # fork is unsafe once JAX has threads
        with concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=end_with_parent
        ) as pool:
            futures = {pool.submit(write_shard, work, *each): each for each in todo}
            try:
                for future in concurrent.futures.as_completed(futures):
                    group, path = futures[future]
                    try:
                        future.result()
                    except BrokenProcessPool as error:
                        raise RuntimeError(
                            f'{description}: a worker process died while {path.name} waited for '
                            'it; run the same command again to continue, with '
                            '--config.data.workers=1 to see where it dies'
                        ) from error
                    bar.update(len(group))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def write_shard(work: Callable[[Sequence, Path], None], group: Sequence, path: Path) -> None:
    """Let `work` write the file of one group; see `map_files`."""
    write_atomically(path, lambda temporary: work(group, temporary))
