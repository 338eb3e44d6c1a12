"""What became of each video of a data set: whether it is there, can be read and lasts long enough.

Strangers' files are read as the stage `prepare` reads them, in processes that may hang or die
(media/guarded.py); that costs only the file that did it.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from amuse_jax.errors import StageError, first_few
from amuse_jax.media import container, guarded, video
from amuse_jax.music_avqa import layout
from amuse_jax.music_avqa.videos import AdditionalVideo
from amuse_jax.system.processes import end_with_parent

MISSING, UNREADABLE, SHORT, WHOLE = 'missing', 'unreadable', 'short', 'whole'

_TOLERANCE_SECONDS = 1.0  # a video of 60 s may end that much earlier
_CHUNK = 8  # videos that a worker takes at once


@dataclasses.dataclass(frozen=True)
class Probe:
    """What became of one video: MISSING, UNREADABLE, SHORT or WHOLE, and why."""

    state: str
    reason: str = ''

    @property
    def is_usable(self) -> bool:
        return self.state in (SHORT, WHOLE)


def probe(limits: guarded.Limits, path: Path, seconds: float) -> Probe:
    """Reads a video as `prepare` does, but only its first and last pictures and a coarse sound.

    Args:
      limits: of reading its picture, and of reading its sound.
      path: the file.
      seconds: how long it should last.
    """
    if not path.is_file():
        return Probe(MISSING)
    reader = guarded.shared(limits)
    try:
        moments = [_TOLERANCE_SECONDS, seconds - _TOLERANCE_SECONDS]
        _, shown = reader.read(video.read_frames, path, moments, 8)
        _, sounding = reader.read(video.read_audio, path, 8000, seconds)
    except container.MediaError as error:
        return Probe(UNREADABLE, error.reason)
    if not shown.any():
        return Probe(UNREADABLE, 'it shows nothing')
    if sounding < seconds - _TOLERANCE_SECONDS:
        return Probe(SHORT, f'its sound lasts {sounding:.1f} s of {seconds:g}')
    if not shown[1]:
        return Probe(SHORT, f'its picture ends more than {_TOLERANCE_SECONDS:g} s early')
    return Probe(WHOLE)


def probe_all(
    root: Path,
    names: Sequence[str],
    lengths: Sequence[float],
    limits: guarded.Limits,
    workers: int,
) -> dict[str, Probe]:
    """Every video's probe, by name.

    Args:
      root: of the data set.
      names: of the videos.
      lengths: how many seconds each should last.
      limits: of reading a file.
      workers: processes; 0: one per core.

    Raises:
      StageError: one of these processes died.
    """
    paths = [layout.video_path(root, name) for name in names]
    workers = min(workers or os.cpu_count(), -(-len(paths) // _CHUNK))
    progress = functools.partial(tqdm, total=len(paths), desc='check', unit='video')
    probe_one = functools.partial(probe, limits)
    if workers <= 1:
        try:
            return dict(zip(names, list(progress(map(probe_one, paths, lengths)))))
        finally:
            guarded.close_shared()
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=end_with_parent
    ) as pool:
        try:
            found = pool.map(probe_one, paths, lengths, chunksize=_CHUNK)
            return dict(zip(names, list(progress(found))))
        except BrokenProcessPool as error:
            raise StageError(
                'a process of the check died, most likely for want of memory; try --workers=1'
            ) from error


def advice(
    not_whole: Mapping[str, Probe], additional: Mapping[str, AdditionalVideo], root: Path
) -> Iterable[str]:
    """Sentences that name the videos that are not whole, and what helps.

    Args:
      not_whole: their probes, by name.
      additional: the table of version 2's additional videos, by name.
      root: of the data set.
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
            f'{len(elsewhere):,} of the missing videos lie elsewhere in {root}, such as '
            f'{elsewhere[0]}; move or link them into {root / "videos"}'
        )
    originals = {name.removesuffix('_flip') for name in missing if name.endswith('_flip')}
    copies = [name for name in originals if layout.video_path(root, name).is_file()]
    if copies:
        yield (
            f'{len(copies):,} of the missing videos are mirrored copies of videos that are there: '
            'ffmpeg -i file:X.mp4 -vf hflip -c:a copy file:X_flip.mp4 makes them'
        )
    wanted = [additional[name] for name in sorted(missing & additional.keys())]
    described = [
        f'{each.video_id}.mp4 from second {each.start_seconds} of {each.youtube_id}'
        for each in wanted
        if not each.is_mirrored
    ]
    if described:
        yield f"To be cut from YouTube's videos: {first_few(described, ', ')}"
