"""Per-video work in shards: parallel, resumable, each shard appearing whole or not at all.

This is a thin layer over `concurrent.futures`, because process pools such as joblib's do not resume
by the files that are already there.
"""

import concurrent.futures
import multiprocessing
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import queues
from pathlib import Path

from tqdm import tqdm

from amuse_jax.errors import PartDone
from amuse_jax.system import cpus, gpus
from amuse_jax.system.files import remove_unfinished, write_atomically
from amuse_jax.system.processes import end_with_parent

# Variables that limit the threads of numerical libraries. They are read when these are imported.
THREADS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'NUMBA_NUM_THREADS')


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
    part: str = '',
    devices: Sequence[str] = (),
) -> list[Path]:
    """Run `work(items_of_the_shard, file_to_write)` for every shard that is not in `folder` yet.

    Args:
      work: a module-level function, because it is sent to other processes. It writes the file that
        it is given.
      items: the items, in a fixed order; item i goes to shard i // shard_size.
      folder: folder of the shards, which are called `00003-of-00024<suffix>`.
      suffix: ending of the files, such as '.npz'.
      shard_size: number of items per shard.
      workers: number of processes; 0 for one per usable CPU; with 1 the work runs in this process.
      description: name of the progress bar.
      unit: name of one item in the progress bar.
      beam: options of an Apache Beam pipeline that does the work instead; '' for no pipeline.
      part: 'k/n' to write only every n-th shard, beginning with the k-th; '' for all.
      devices: names of GPUs, from `gpus.visible`. If there are any, one process works for each of
        them, whatever `workers` is, and sees this GPU only.

    Returns:
      The paths of the shards, in order.

    Raises:
      PartDone: the shards of `part` are written, and others may be missing.
      RuntimeError: a worker process died; the message names its shard.
      StageError: see `beam.map_files`.
      Any exception that `work` raises.
    """
    groups = [items[start : start + shard_size] for start in range(0, len(items), shard_size)]
    paths = [folder / f'{index:05d}-of-{len(groups):05d}{suffix}' for index in range(len(groups))]
    chosen = part_slice(part) if part else slice(None)
    map_files(
        work,
        groups[chosen],
        paths[chosen],
        workers=workers,
        description=description,
        unit=unit,
        beam=beam,
        devices=devices,
        is_shared=bool(part),
    )
    if part:
        written = len(paths[chosen])
        raise PartDone(f'{description}: part {part}: {written} of {len(paths)} shards are written')
    return paths


def part_slice(part: str) -> slice:
    """Return the slice of a list of shards that 'k/n' names: every n-th, from the k-th (1 to n).

    Raises:
      ValueError: `part` is not 'k/n' with 1 <= k <= n.
    """
    match = re.fullmatch(r'(\d+)/(\d+)', part)
    first, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= count:
        raise ValueError(f'{part!r} names no part; expected K/N with 1 <= K <= N, such as 3/16')
    return slice(first - 1, None, count)


def map_files(
    work: Callable[[Sequence, Path], None],
    groups: Sequence[Sequence],
    paths: Sequence[Path],
    *,
    workers: int,
    description: str,
    unit: str = 'video',
    beam: str = '',
    devices: Sequence[str] = (),
    is_shared: bool = False,
) -> None:
    """Run `work(group, file_to_write)` for every group whose path does not exist yet.

    All paths must be in one folder. `is_shared` says that other processes may write into this
    folder at the same time. The other arguments and the errors are those of `map_shards`.
    """
    if paths:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        if not is_shared:
            remove_unfinished(paths[0].parent)
    todo = [(group, path) for group, path in zip(groups, paths) if not path.exists()]
    if beam and todo:
        from amuse_jax.system import beam as pipelines  # Apache Beam, an extra

        pipelines.map_files(work, todo, beam, description)
        return
    total = sum(len(group) for group in groups)
    done = total - sum(len(group) for group, _ in todo)
    devices = devices[: max(len(todo), 1)]
    workers = len(devices) or min(workers or cpus.usable(), max(len(todo), 1))
    with tqdm(total=total, initial=done, desc=description, unit=unit) as bar:
        if workers == 1 and not devices:
            for group, path in todo:
                write_atomically(path, lambda temporary, group=group: work(group, temporary))
                bar.update(len(group))
            return
        with _pool(workers, devices) as pool:
            futures = {pool.submit(write_shard, work, *each): each for each in todo}
            try:
                for future in concurrent.futures.as_completed(futures):
                    group, path = futures[future]
                    try:
                        future.result()
                    except BrokenProcessPool as error:
                        raise RuntimeError(
                            f'{description}: a worker process died while {path.name} waited for '
                            'it, probably because memory ran out; run the same command again to '
                            'continue, with fewer --config.data.workers if it dies again'
                        ) from error
                    bar.update(len(group))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def cpus_per_worker() -> int:
    """Return the number of CPUs for this process: its share if it is one of several workers."""
    return max(1, cpus.usable() // _workers)


_workers = 1


def write_shard(work: Callable[[Sequence, Path], None], group: Sequence, path: Path) -> None:
    """Let `work` write the file of one group; see `map_files`."""
    write_atomically(path, lambda temporary: work(group, temporary))


def _pool(workers: int, devices: Sequence[str]) -> concurrent.futures.ProcessPoolExecutor:
    """Return a pool of processes that end with this one; with devices, one process for each."""
    context = multiprocessing.get_context('spawn')  # fork is unsafe once JAX has threads
    names = context.SimpleQueue()
    for name in devices:
        names.put(name)
    return concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(workers, names, devices)
    )


def _start_worker(workers: int, names: queues.SimpleQueue, devices: Sequence[str]) -> None:
    """Set up a worker process before it imports the module of its work."""
    global _workers
    _workers = workers
    end_with_parent()
    if devices:
        gpus.see_only(names.get())
        for variable in THREADS:
            os.environ.setdefault(variable, str(cpus_per_worker()))
