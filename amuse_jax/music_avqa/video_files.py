"""Finds the video files of a data set, wherever its archives were unpacked.

Without the setting `data.videos` these folders of the data set are searched, with all folders in
them: `videos`, `video` and those that are called like the authors' archives, such as
`MUSIC-AVQA-videos-Real`; they may also be in `data`. Files directly in the data set's folder, or in
`data`, are found as well.
"""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import rows
from amuse_jax.system import paths

SUFFIX = '.mp4'
# One of the authors' archives is called MUCIS-AVQA-videos-Synthetic.
_USUAL_FOLDER = re.compile(r'videos?|.*avqa[-_ ]videos?.*', re.IGNORECASE)


def video_path(root: Path, video_id: str, videos: str = '') -> Path:
    """Return the path of a video's file.

    The file is `<video_id>.mp4`, or `<video_id>` if the id itself ends in `.mp4`. If there are
    several, the one in the first of the folders is taken.

    Args:
      root: folder of the data set.
      video_id: name of the video.
      videos: the setting `data.videos`.

    Returns:
      The path; if there is no such file, the one where it is expected first.

    Raises:
      ValueError: `video_id` is not a plain file name.
      StageError: `videos` names a folder that does not exist, or an address.
    """
    name = rows.plain_name(video_id, 'video_id')
    first = next(iter(_chosen_folders(root, videos)), root / 'videos')
    expected = first / f'{name}{SUFFIX}'
    if expected.is_file():
        return expected
    found = _index(root, videos)
    return found.get(name + SUFFIX) or found.get(name) or expected


def search(root: Path, videos: str = '') -> None:
    """Check that there is a folder of videos, and look for its files again.

    Each process looks for the files once. Call this when a stage begins.

    Raises:
      StageError: there is no folder of videos.
    """
    _index.cache_clear()
    if not exist(root, videos):
        raise StageError(
            f'{root} has no folder videos/, and none of the other usual ones (data/video/, '
            'MUSIC-AVQA-videos-Real/ and -Synthetic/); expected the videos there as '
            'videos/<video_id>.mp4, or set --config.data.videos=DIR (several: DIR,DIR) to the '
            'folders that hold them'
        )


def exist(root: Path, videos: str = '') -> bool:
    """Return whether there is a folder of videos, or a video directly in the data set's folder.

    Raises:
      StageError: `videos` names a folder that does not exist, or an address.
    """
    return bool(folders(root, videos) or _index(root, videos))


def folders(root: Path, videos: str = '') -> list[Path]:
    """Return the folders of the videos; the folders in them belong to them.

    Args:
      root: folder of the data set.
      videos: the setting `data.videos`: folders, separated by commas, relative to `root` or
        absolute; '' for the usual ones.

    Raises:
      StageError: `videos` names a folder that does not exist, or an address.
    """
    if not videos:
        parents = [parent for parent in (root, root / 'data') if parent.is_dir()]
        usual = [
            folder
            for parent in parents
            for folder in sorted(parent.iterdir())
            if _USUAL_FOLDER.fullmatch(folder.name) and folder.is_dir()
        ]
        return sorted(usual, key=lambda folder: folder != root / 'videos')
    chosen = _chosen_folders(root, videos)
    for folder in chosen:
        if not folder.is_dir():
            raise StageError(
                f'data.videos names {folder}, which is not a folder; expected the folders that '
                'hold the videos, separated by commas, relative to data.root or absolute'
            )
    return chosen


def describe_doubles(root: Path, videos: str = '') -> str:
    """Return a sentence on videos of which there are several different files; '' if none."""
    first: dict[str, Path] = {}
    doubles = []
    for path in _all_files(root, videos):
        other = first.setdefault(path.name, path)
        if other is not path and other.stat().st_size != path.stat().st_size:
            doubles.append((other, path))
    if not doubles:
        return ''
    taken, left = doubles[0]
    return (
        f'{len(doubles):,} videos have a second file of another size, such as {left}; '
        f'the first one, {taken}, is taken'
    )


def _chosen_folders(root: Path, videos: str) -> list[Path]:
    """Return the folders that the setting `data.videos` names, which may not exist."""
    names = filter(None, map(str.strip, videos.split(',')))
    return [root / paths.from_user(name, 'config.data.videos') for name in names]


@functools.lru_cache(maxsize=8)
def _index(root: Path, videos: str) -> dict[str, Path]:
    """Return the path of every video file by its name; the first one counts."""
    found: dict[str, Path] = {}
    for path in _all_files(root, videos):
        name = path.name.removesuffix(path.suffix) + SUFFIX  # the suffix may be .MP4
        found.setdefault(name, path)
    return found


def _all_files(root: Path, videos: str) -> Iterator[Path]:
    for folder in folders(root, videos):
        yield from _files_below(folder)
    if not videos:
        for folder in (root, root / 'data'):
            if folder.is_dir():
                yield from sorted(path for path in folder.iterdir() if _is_video(path.name))


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the video files in a folder and in all folders below it, also behind links."""
    visited = set()  # a link may lead back to a folder above it
    for parent, names, files in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:
            names.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        names.sort()
        yield from (Path(parent, name) for name in sorted(files) if _is_video(name))


def _is_video(name: str) -> bool:
    return name.lower().endswith(SUFFIX) and not name.startswith('.')
