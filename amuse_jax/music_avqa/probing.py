"""Checks of each video of a data set: does it exist, can it be read, and is it long enough?

The files are read as in the stage `prepare`, in separate processes (media/guarded.py). A file that
makes such a process hang or die is reported as unreadable, and the check goes on.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from amuse_jax.errors import StageError, first_few
from amuse_jax.media import audio, container, guarded, video
from amuse_jax.music_avqa import video_files
from amuse_jax.music_avqa.videos import AdditionalVideo
from amuse_jax.system import cpus
from amuse_jax.system.processes import end_with_parent

MISSING, UNREADABLE, SHORT, WHOLE = 'missing', 'unreadable', 'short', 'whole'

_TOLERANCE_SECONDS = 1.0  # a video that ends at most this much early is not short
_CHUNK = 8  # videos that a worker takes at once


@dataclasses.dataclass(frozen=True)
class Probe:
    """Result of checking one video.

    Attributes:
      state: MISSING, UNREADABLE, SHORT or WHOLE.
      reason: why the video is unreadable or short, else ''.
    """

    state: str
    reason: str = ''

    @property
    def is_usable(self) -> bool:
        """Whether `prepare` can use the video; a short one is padded."""
        return self.state in (SHORT, WHOLE)


def probe(limits: guarded.Limits, path: Path, seconds: float) -> Probe:
    """Check one video by reading a frame near its beginning, one near its end, and all its sound.

    Args:
      limits: limits for reading the picture, and again for reading the sound.
      path: the file.
      seconds: expected length of the video.
    """
    if not path.is_file():
        return Probe(MISSING)
    try:
        moments = [_TOLERANCE_SECONDS, seconds - _TOLERANCE_SECONDS]
        _, frame_mask, _ = guarded.read(limits, video.read_frames, path, moments, 8)
        _, sound_seconds = guarded.read(limits, audio.read_audio, path, 8000, seconds)
    except container.MediaError as error:
        return Probe(UNREADABLE, error.reason)
    if not frame_mask.any():
        return Probe(UNREADABLE, 'it shows nothing')
    if sound_seconds < seconds - _TOLERANCE_SECONDS:
        return Probe(SHORT, f'its sound lasts {sound_seconds:.1f} s of {seconds:g}')
    if not frame_mask[1]:
        return Probe(SHORT, f'its picture ends more than {_TOLERANCE_SECONDS:g} s early')
    return Probe(WHOLE)


def probe_all(
    root: Path,
    folders: str,
    names: Sequence[str],
    lengths: Sequence[float],
    limits: guarded.Limits,
    workers: int,
) -> dict[str, Probe]:
    """Check many videos.

    Args:
      root: folder of the data set.
      folders: the setting `data.videos`.
      names: names of the videos.
      lengths: expected length of each video in seconds.
      limits: limits for reading one file.
      workers: number of processes; 0 for one per core.

    Returns:
      The results by video name.

    Raises:
      StageError: one of the processes died.
    """
    paths = [video_files.video_path(root, name, folders) for name in names]
    workers = min(workers or cpus.usable(), -(-len(paths) // _CHUNK))
    progress = functools.partial(tqdm, total=len(paths), desc='check', unit='video')
    probe_one = functools.partial(probe, limits)
    if workers <= 1:
        try:
            return dict(zip(names, list(progress(map(probe_one, paths, lengths)))))
        finally:
            guarded.close_readers()
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=end_with_parent
    ) as pool:
        try:
            found = pool.map(probe_one, paths, lengths, chunksize=_CHUNK)
            return dict(zip(names, list(progress(found))))
        except BrokenProcessPool as error:
            raise StageError(
                'a process of the check died, probably because memory ran out; try --workers=1'
            ) from error


def describe_problems(
    not_whole: Mapping[str, Probe],
    additional: Mapping[str, AdditionalVideo],
    root: Path,
    folders: str,
) -> Iterable[str]:
    """Yield sentences that name the videos with problems and say what to do about them.

    Args:
      not_whole: the results that are not WHOLE, by video name.
      additional: the table of version 2's additional videos, by name.
      root: folder of the data set.
      folders: the setting `data.videos`.
    """
    for state in (MISSING, UNREADABLE, SHORT):
        named = {name: probed for name, probed in not_whole.items() if probed.state == state}
        if named:
            described = [f'{n} ({p.reason})' if p.reason else n for n, p in named.items()]
            yield f'{len(named):,} videos {state}: {first_few(described, ", ")}'
    missing = {name for name, probed in not_whole.items() if probed.state == MISSING}
    elsewhere = [path for path in root.rglob('*.mp4') if path.stem in missing] if missing else []
    if elsewhere:
        yield (
            f'{len(elsewhere):,} of the missing videos are elsewhere in {root}, such as '
            f'{elsewhere[0]}; name their folder (--videos=DIR, in a run --config.data.videos=DIR), '
            f'or move or link them into {root / "videos"}'
        )
    originals = {name.removesuffix('_flip') for name in missing if name.endswith('_flip')}
    copies = [name for name in originals if video_files.video_path(root, name, folders).is_file()]
    if copies:
        yield (
            f'{len(copies):,} of the missing videos are mirrored copies of videos that are there: '
            'ffmpeg -i file:X.mp4 -vf hflip -c:a copy file:X_flip.mp4 makes them'
        )
    listed = [additional[name] for name in sorted(missing & additional.keys())]
    described = [
        f'{each.video_id}.mp4 from second {each.start_seconds} of {each.youtube_id}'
        for each in listed
        if not each.is_mirrored
    ]
    if described:
        yield f'To be cut from YouTube videos: {first_few(described, ", ")}'
