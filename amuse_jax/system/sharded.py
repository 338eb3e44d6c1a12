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
    """Runs `work(items_of_the_shard, file_to_write)` for every shard that is not in `folder` yet.

    Args:
      work: a module-level function (it travels to other processes); writes the file it is given.
      items: what to work on, in a fixed order; item i goes to shard i // shard_size.
      folder: where the shards go, as `00003-of-00024<suffix>`.
      suffix: the files' ending, such as '.npz'.
      shard_size: items per shard.
      workers: processes; 0 = one per core; with 1 the work runs in this process.
      description: the progress bar's name.
      unit: what one item is called in the progress bar.
      beam: options of an Apache Beam pipeline that does the work instead of `workers`; '': none.

    Returns:
      The shards' paths, in order.

    Raises:
      RuntimeError: a worker process died (named by its shard).
      Whatever `work` raises.
      StageError: see `beam.map_files`.
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
    """Runs `work(group, file_to_write)` for every group whose path does not exist yet.

    Arguments and errors as for `map_shards`; all paths lie in one folder.
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
                write_atomically(path, lambda beside, group=group: work(group, beside))
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
                            'it; the same command goes on from here, and with '
                            '--config.data.workers=1 it shows where it dies'
                        ) from error
                    bar.update(len(group))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def write_shard(work: Callable[[Sequence, Path], None], group: Sequence, path: Path) -> None:
    """Lets `work` write the file of one group; see `map_files`."""
    write_atomically(path, lambda beside: work(group, beside))
