"""`sources.json` of the prepare stage: the annotation files and videos that the records come from.

The names do not depend on where the data set is: 'annotations/train' for the annotation file of a
split, 'rephrased/FILE' for MUSIC-AVQA-R's, and 'videos/ID' for a video. The value is the entry of
system/contents.py, or null for a video that did not exist.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from amuse_jax import music_avqa
from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import layout
from amuse_jax.system import contents
from amuse_jax.system.files import write_json

FILE = 'sources.json'
VIDEOS = 'videos/'  # prefix of a video's name
_THREADS = 8  # the hash of a file leaves Python's lock free, and a network disk has latency
Entries = dict[str, contents.Entry | None]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The source files of a prepare stage as they are now.

    Attributes:
      changed: one phrase for each file that is new or has other content.
      gone: names of files that do not exist any more.
      entries: the entries with the present times. A file that is gone keeps its entry.
    """

    changed: tuple[str, ...]
    gone: tuple[str, ...]
    entries: Entries


def annotation_files(root: Path, settings: ConfigDict, splits: Sequence[str]) -> dict[str, Path]:
    """Return the paths of the annotation files that exist, by name.

    Args:
      root: folder of the data set.
      settings: the section `data`; its `annotations` and `rephrased` are read.
      splits: the splits that are read.
    """
    by_video = settings.annotations == 'v1-by-video'  # needs the files of all splits
    wanted = music_avqa.SPLITS if by_video else splits
    located = layout.locate(root, settings.annotations)
    paths = {f'annotations/{split}': path for split, (_, path) in located.items()}
    paths = {name: paths[name] for name in map('annotations/{}'.format, wanted) if paths[name]}
    with contextlib.suppress(StageError):  # the stage itself reports a missing file
        rephrased = layout.find_rephrased(root, settings.rephrased)
        paths |= {f'rephrased/{path.name}': path for path in rephrased}
    return paths


def video_paths(root: Path, videos: str) -> Callable[[str], Path]:
    """Return the function from a video's id to the path of its file.

    Args:
      root: folder of the data set.
      videos: folders of the videos, as in `data.videos`.
    """
    return lambda video_id: music_avqa.video_path(root, video_id, videos)


def compare(
    recorded: Entries, annotations: Mapping[str, Path], video_path: Callable[[str], Path]
) -> Comparison:
    """Compare recorded entries with the files as they are now.

    A file is read only if its time has changed and its size has not.

    Args:
      recorded: the entries in `sources.json`.
      annotations: the annotation files now, from `annotation_files`.
      video_path: returns where the file of a video is now.
    """
    names = list(dict.fromkeys([*annotations, *recorded]))
    paths = [
        video_path(name.removeprefix(VIDEOS)) if name.startswith(VIDEOS) else annotations.get(name)
        for name in names
    ]
    known = [recorded.get(name) for name in names]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = list(
            tqdm(
                pool.map(_measure, paths, known),
                total=len(names), desc='source files', unit='file', delay=5,
            )
        )  # fmt: skip
    changed, gone, entries = [], [], {}
    for name, before, now in zip(names, known, found):
        entries[name] = now if now is not None else before
        if before is None and now is not None:
            changed.append(f'{name} is new')
        elif before is not None and now is None:
            gone.append(name)
        elif before is not None and now[0] != before[0]:
            changed.append(f'{name} has {now[0]:,} bytes and had {before[0]:,}')
        elif before is not None and now[2] != before[2]:
            changed.append(f'{name} has other content')
    return Comparison(tuple(changed), tuple(gone), entries)


def _measure(path: Path | None, known: contents.Entry | None) -> contents.Entry | None:
    return None if path is None else contents.measure(path, known)


def read(folder: Path) -> Entries | None:
    """Read `sources.json` of a stage's folder; None if there is none."""
    path = folder / FILE
    return json.loads(path.read_text('utf-8')) if path.is_file() else None


def write(folder: Path, entries: Entries) -> None:
    """Write `sources.json` of a stage's folder."""
    write_json(folder / FILE, dict(sorted(entries.items())))


def digest(entries: Entries) -> str:
    """Return a hash of the contents of all source files; it does not depend on their times."""
    hashes = {name: entry and entry[2] for name, entry in sorted(entries.items())}
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:16]


def record(
    folder: Path, root: Path, settings: ConfigDict, entries: Entries, splits: Sequence[str]
) -> None:
    """Write `sources.json` with the annotation files and the given videos, as they are now.

    Args:
      folder: the stage's folder.
      root: folder of the data set.
      settings: the section `data`.
      entries: earlier entries of the videos; None for one that is to be read.
      splits: the splits that the stage read.
    """
    annotations = annotation_files(root, settings, splits)
    write(folder, compare(entries, annotations, video_paths(root, settings.videos)).entries)


def compare_sources(
    config: ConfigDict,
    folder: Path,
    inputs: Mapping[str, Path],
    splits: Sequence[str] = music_avqa.SPLITS,
) -> Comparison | None:
    """Compare the annotation files and videos with those that a stage was made from.

    Args:
      config: the whole config; its section `data` is read.
      folder: the stage's folder.
      inputs: folders of earlier stages by name.
      splits: the splits that were prepared.

    Returns:
      The comparison; None if nothing is recorded, or the data set is not there.
    """
    recorded = read(folder)
    root = Path(config.data.root) if config.data.root else inputs.get('render')
    if recorded is None or root is None or not root.is_dir():
        return None
    annotations = annotation_files(root, config.data, splits)
    return compare(recorded, annotations, video_paths(root, config.data.videos))


def record_sources(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> bool:
    """Write `sources.json` for records that were made before there was one.

    All files are read once. The arguments are those of `compare_sources`.

    Returns:
      Whether the data set has all videos of the records.
    """
    root = music_avqa.data_root(config, inputs)
    path_of = video_paths(root, config.data.videos)
    names = {video[key] for video in Prepared(folder).videos for key in ('video_id', 'sound_id')}
    if not all(path_of(name).is_file() for name in names):
        return False
    quarantine = json.loads((folder / 'quarantine.json').read_text('utf-8'))
    names |= {entry['video_id'] for entry in quarantine}
    videos = dict.fromkeys(f'{VIDEOS}{name}' for name in sorted(names))
    record(folder, root, config.data, videos, music_avqa.SPLITS)
    return True
