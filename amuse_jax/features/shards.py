"""Shards of features: what one extractor computes for a group of videos or questions.

The networks, and with them PyTorch, are imported only when a shard is written.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.features import catalogue, frames
from amuse_jax.media import audio, guarded
from amuse_jax.media.container import MediaError
from amuse_jax.system import environment, gpus, memory, shard_arrays, sharded
from amuse_jax.system.processes import this_process

_ADVICE = 'end other programs on this device, and run the same command again to continue'


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process needs to know to write shards.

    Attributes:
      extractor: which arrays are computed.
      weights: the file, folder or hub name of its weights; '' if it needs none.
      root: the data set's folder.
      videos: folders of the videos, as in `data.videos`.
      limits: limits for reading a video.
    """

    extractor: catalogue.Extractor
    weights: str
    root: Path
    videos: str
    limits: guarded.Limits


def write_questions(job: Job, texts: Sequence[str], path: Path) -> None:
    """Write one shard of questions; see `shard_arrays.write`."""
    with memory.shortage_as_error('features', _ADVICE):
        found = load(job.extractor.name, job.weights)(texts)
    arrays = {name: found[name].astype(np.float16) for name in job.extractor.shapes}
    shard_arrays.write(path, arrays, [''] * len(texts))


def write_videos(job: Job, ids: Sequence[str], path: Path) -> None:
    """Write one shard of videos; see `shard_arrays.write`.

    A video that cannot be read, though prepare has read it, gets zeros and a reason.

    Raises:
      StageError: a video is gone, or this process cannot see the folder of the videos.
    """
    if not music_avqa.videos_exist(job.root, job.videos):
        raise StageError(
            f'{this_process()} does not see {job.root} with its videos; mount its disk under this '
            'path and run the same command again to continue'
        )
    shapes, reasons = job.extractor.shapes, []
    arrays = {name: np.zeros((len(ids), *shape), np.float16) for name, shape in shapes.items()}
    compute = load(job.extractor.name, job.weights)
    for row, inputs in enumerate(_read_all(job, compute, ids)):
        if isinstance(inputs, MediaError):
            reasons.append(inputs.reason)
            continue
        with memory.shortage_as_error('features', _ADVICE):
            found = compute(*inputs)
        for name, array in arrays.items():
            array[row] = found[name]
        reasons.append('')
    shard_arrays.write(path, arrays, reasons)


@functools.lru_cache(maxsize=1)
def load(name: str, weights: str) -> Callable[..., dict[str, np.ndarray]]:
    """Load an extractor once per process.

    Args:
      name: its name in the catalogue.
      weights: see `Job`.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """
    environment.wait_passively()
    match name:
        case 'vggish':
            from amuse_jax.features import vggish

            return vggish.Seconds(weights)
        case 'resnet18':
            from amuse_jax.features import resnet18

            return resnet18.Maps(weights)
        case 'clip_pictures':
            from amuse_jax.features import clip

            return clip.Pictures(weights)
        case 'clip_questions':
            from amuse_jax.features import clip

            return clip.Questions(weights)
        case 'ast':
            from amuse_jax.features import audio_spectrogram

            return audio_spectrogram.Steps(weights)
        case 'fbank':
            from amuse_jax.features import fbank

            return fbank.LAVISHWindows()
        case 'log_mel':
            from amuse_jax.features import log_mel

            return log_mel.RepeatedSeconds()
    raise ValueError(f'there is no extractor {name!r}')


def _read_all(job: Job, compute: Callable, ids: Sequence[str]) -> Iterator[tuple | MediaError]:
    """Yield the inputs of each video, or the error if it cannot be read.

    On a GPU several threads decode, because the network is faster than one of them. On CPUs one
    process works per core.
    """
    threads = sharded.cpus_per_worker() if gpus.visible() else 1
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(ids), threads):
            group = ids[start : start + threads]
            yield from pool.map(functools.partial(_read, job, compute), group)


def _read(job: Job, compute: Callable, name: str) -> tuple | MediaError:
    """Return the inputs that an extractor takes from a video, or the error."""
    path = music_avqa.video_path(job.root, name, job.videos)
    try:
        if job.extractor.reads == 'sound':
            samples, seconds = guarded.read(
                job.limits, audio.read_audio, path, compute.sample_rate, float(catalogue.SECONDS)
            )
            return samples, float(seconds)
        pictures, mask = guarded.read(job.limits, frames.read, path, compute.moments, compute.fit)
        if not mask.any():
            raise MediaError(f'it shows nothing in its first {catalogue.SECONDS} s')
        return pictures, mask
    except MediaError as error:
        if not path.is_file():  # the disk of all videos may be gone with it
            raise StageError(
                f'{path} could be read by the prepare stage, but it can no longer be read '
                f'({error.reason}); add prepare to --stages to check the videos again'
            ) from error
        return error
