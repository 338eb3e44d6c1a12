"""The stage `prepare`: one record per video, with its frames, log-mel and questions (Sec. 4.1).

A record holds the frame at the middle of each of T segments and the log-mel of each segment's sound
(video_arrays.py). A video that is shorter than T segments is padded and masked; a longer one is
cut. A video is set aside, with the reason in `quarantine.json`, if it has no picture or no sound,
is cut off, has a sound that is not finite, or makes the process that reads it (media/guarded.py)
hang or die.
Version 2 of MUSIC-AVQA also asks about a video's picture with the sound of another video. Each such
pair is a record of its own.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
from absl import logging
from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.data import records, sources, video_arrays
from amuse_jax.data.prepared import Prepared, write_tables
from amuse_jax.errors import NewerFormat, StageError, first_few
from amuse_jax.media import guarded, video
from amuse_jax.media.log_mel import LogMel
from amuse_jax.music_avqa import Question
from amuse_jax.music_avqa.splits import advise_on_lost, describe_shared_videos, describe_test_set
from amuse_jax.music_avqa.video_files import describe_doubles
from amuse_jax.system import contents as file_contents
from amuse_jax.system.files import write_json
from amuse_jax.system.processes import this_process
from amuse_jax.system.sharded import map_shards


@dataclasses.dataclass(frozen=True)
class Pair:
    """A picture, a sound and their questions: the input of one record.

    Attributes:
      video_id: the video whose picture is shown.
      sound_id: the video whose sound is played; usually the same.
      questions: all questions about the pair, from every split.
      sizes: sizes of the two files in bytes, None for a missing file.
    """

    video_id: str
    sound_id: str
    questions: tuple[Question, ...]
    sizes: tuple[int | None, int | None]


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """Settings of a process that writes shards.

    Attributes:
      root: folder of the data set.
      videos: folders of the videos, as in `data.videos`.
      image_size: S, height and width of the frames in pixels.
      log_mel: the log-mel front end.
      limits: limits of time and memory for reading one file.
      launcher: name of the process that hands out the shards, from `processes.this_process`.
    """

    root: Path
    videos: str
    image_size: int
    log_mel: LogMel
    limits: guarded.Limits
    launcher: str


def run(
    config: ConfigDict,
    folder: Path,
    inputs: Mapping[str, Path],
    splits: Sequence[str] = music_avqa.SPLITS,
) -> dict:
    """Run the stage.

    Args:
      config: the whole config; its sections `data` and `audio` are read.
      folder: the stage's folder. The stage writes `records/*.array_record`, `videos.json`,
        `questions.json`, `quarantine.json`, `malformed_rows.json` (rows that were left out),
        `remarks.json` (rows that were changed, repeated or deleted, and videos that were cut), and
        `sources.json` (sources.py).
      inputs: folders of earlier stages by name; 'render' if the data set is a rendered one.
      splits: the splits to prepare. Rephrased questions are always prepared.

    Returns:
      A summary: 'videos', 'questions' (number per split), 'quarantined', 'reasons' (number of
      videos per reason) and 'malformed_rows'.

    Raises:
      PartDone: the shards that `data.part` names are written, and others may be missing.
      StageError: the data set is missing or empty, or a larger share of it is broken than
        `data.max_broken_share` allows.
    """
    root = music_avqa.data_root(config, inputs)
    allowed = config.data.max_broken_share
    music_avqa.search_videos(root, config.data.videos)
    doubles = describe_doubles(root, config.data.videos)
    if doubles:
        logging.warning('prepare: %s', doubles)
    questions = _read_questions(root, config.data, folder, splits)
    pairs = _make_pairs(root, config.data.videos, questions)
    log_mel = LogMel.from_settings(config)
    limits = guarded.Limits.from_settings(config.data)
    settings = WorkerSettings(
        root, config.data.videos, config.data.image_size, log_mel, limits, this_process()
    )
    records_folder = Prepared(folder).records_folder
    _delete_stale_shards(records_folder, pairs, settings, config.data.shard_videos)
    try:
        paths = map_shards(
            functools.partial(write_records, settings),
            pairs,
            records_folder,
            suffix=records.SUFFIX,
            shard_size=config.data.shard_videos,
            workers=config.data.workers,
            description='prepare',
            beam=config.data.beam,
            part=config.data.part,
        )
    finally:
        guarded.close_readers()  # this process has one if it wrote the shards itself
    entries = {
        name: entry
        for path in paths
        for name, entry in records.read_contents(path).get('sources', {}).items()
    }
    sources.record(folder, root, config.data, entries, splits)
    used_seconds = log_mel.segments * log_mel.segment_seconds
    return _write_results(folder, paths, pairs, allowed, used_seconds)


def write_records(settings: WorkerSettings, pairs: Sequence[Pair], path: Path) -> None:
    """Write one shard: the records of `pairs`, and the list of those that were set aside.

    Raises:
      StageError: a video existed when the stage began, but this process cannot see it.
    """
    if this_process() != settings.launcher:
        _use_one_cpu_thread()
    videos, quarantine, entries = [], [], {}
    writer = records.ShardWriter(path)
    for pair in pairs:
        names = {'video_id': pair.video_id, 'sound_id': pair.sound_id}
        picture, sound = (
            music_avqa.video_path(settings.root, name, settings.videos) for name in names.values()
        )
        for name, file in zip(names.values(), (picture, sound)):
            entries[f'{sources.VIDEOS}{name}'] = file_contents.measure(file)
        try:
            arrays = video_arrays.read_video(
                settings.limits, picture, sound, settings.image_size, settings.log_mel
            )
        except video.MediaError as error:
            _check_disk((picture, sound), pair.sizes)
            quarantine.append({'video_id': pair.video_id, 'reason': error.reason})
            continue
        questions = [question.to_json() for question in pair.questions]
        writer.write(names | arrays | {'questions': questions})
        videos.append(names | {'seconds': arrays['seconds']})
    limits = dataclasses.asdict(settings.limits)
    writer.close(
        {
            'source': _source_hash(pairs),
            'limits': limits,
            'videos': videos,
            'quarantine': quarantine,
            'sources': entries,
        }
    )


def _check_disk(paths: Sequence[Path], sizes: Sequence[int | None]) -> None:
    """Raise StageError if a file is gone that existed when the stage began.

    Then its disk is not mounted on this machine, and the video must not be set aside as broken.
    """
    for path, size in zip(paths, sizes):
        if size is not None and not path.is_file():
            raise StageError(
                f'{path} was there when prepare began, but {this_process()} does not see '
                'it; mount its disk under this path and start the same command again to go on'
            )


def _use_one_cpu_thread() -> None:
    """Limit JAX to one CPU thread, because one worker runs per core.

    The accelerator is left to other processes.
    """
    os.environ['NPROC'] = '1'  # the size of XLA's thread pools
    jax.config.update('jax_platforms', 'cpu')


def _read_questions(
    root: Path, settings: ConfigDict, folder: Path, splits: Sequence[str]
) -> list[Question]:
    """Read the data set's questions, and write the two lists of rows with problems."""
    annotations = music_avqa.read(root, settings.annotations, settings.rephrased, splits)
    for file in annotations.files:
        if len(file.malformed) > settings.max_broken_share * file.rows:
            raise StageError(
                f'{len(file.malformed)} of {file.rows} rows of {file.path} are malformed '
                f'(data.max_broken_share allows {settings.max_broken_share:.0%}): '
                f'{first_few(file.malformed, "; ")}'
            )
        if not file.questions:
            raise StageError(f'{file.path} holds no questions; every split needs at least one')
    for split, questions in annotations.questions.items():
        if not questions:
            raise StageError(
                f'the split {split} of {root} has no questions (data.annotations is '
                f'{settings.annotations}); every split needs at least one'
            )
    malformed = [complaint for file in annotations.files for complaint in file.malformed]
    write_json(folder / 'malformed_rows.json', malformed)
    write_json(folder / 'remarks.json', annotations.remarks)
    for complaint in malformed:
        logging.warning('prepare: left out: %s', complaint)
    if 'train' in annotations.questions and 'val' in annotations.questions:
        shared = describe_shared_videos(annotations.questions)
        if shared:
            logging.info('prepare: %s', shared)
    if annotations.remarks:
        logging.info('prepare: rows not taken as written: %s', first_few(annotations.remarks, '; '))
    return [question for found in annotations.questions.values() for question in found]


def _make_pairs(root: Path, videos: str, questions: Iterable[Question]) -> list[Pair]:
    """Return one pair for each picture and sound, ordered by their names."""
    groups = collections.defaultdict(list)
    for question in questions:
        groups[question.video_id, question.sound_id].append(question)
    size = functools.cache(lambda name: _size(music_avqa.video_path(root, name, videos)))
    return [
        Pair(*names, tuple(group), (size(names[0]), size(names[1])))
        for names, group in sorted(groups.items())
    ]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _source_hash(pairs: Sequence[Pair]) -> str:
    """Return a hash of everything that a shard is made from, except the settings."""
    content = json.dumps([dataclasses.astuple(pair) for pair in pairs])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _delete_stale_shards(
    folder: Path, pairs: Sequence[Pair], settings: WorkerSettings, shard_videos: int
) -> None:
    """Delete the shards of an interrupted run that this run cannot use.

    They are damaged, were made from other files or questions, or set videos aside under other
    limits.

    Raises:
      NewerFormat: a newer version of amuse_jax wrote a shard.
    """
    count = -(-len(pairs) // shard_videos)
    limits = dataclasses.asdict(settings.limits)
    for path in folder.glob(f'[0-9]*-of-[0-9]*{records.SUFFIX}'):
        index, _, total = path.name.removesuffix(records.SUFFIX).partition('-of-')
        start = int(index) * shard_videos
        try:
            contents = records.read_contents(path)
        except NewerFormat:
            raise
        except StageError as error:
            logging.warning('prepare: writing again: %s', error)
            path.unlink()
            continue
        has_same_source = contents['source'] == _source_hash(pairs[start : start + shard_videos])
        has_other_limits = contents['quarantine'] and contents.get('limits') != limits
        compared = sources.compare(
            contents.get('sources', {}), {}, sources.video_paths(settings.root, settings.videos)
        )
        is_stale = not has_same_source or has_other_limits or int(total) != count
        if is_stale or compared.changed or compared.gone:
            path.unlink()


def _write_results(
    folder: Path,
    paths: Sequence[Path],
    pairs: Sequence[Pair],
    allowed: float,
    used_seconds: float,
) -> dict:
    """Write the tables of all shards, unless too many videos were set aside; return the summary."""
    videos, quarantine = [], []
    for path in paths:
        contents = records.read_contents(path)
        quarantine += contents['quarantine']
        for position, entry in enumerate(contents['videos']):
            videos.append(entry | {'shard': path.name, 'position': position})
    write_json(folder / 'quarantine.json', quarantine)
    for entry in quarantine:
        logging.warning('prepare: set aside: %s: %s', entry['video_id'], entry['reason'])
    index = {(entry['video_id'], entry['sound_id']): i for i, entry in enumerate(videos)}
    lost = _describe_lost(pairs, index)
    if len(quarantine) > allowed * len(pairs) or not videos:
        named = [f'{entry["video_id"]} ({entry["reason"]})' for entry in quarantine]
        advice = advise_on_lost(len(quarantine), len(pairs)) if videos else ''
        raise StageError(
            f'{len(quarantine)} of {len(pairs)} videos cannot be used (data.max_broken_share '
            f'allows {allowed:.0%}): {first_few(named, ", ")}; {folder / "quarantine.json"} names '
            f'all. {lost} Repair the files and start the same command again. {advice}'.strip()
        )
    if quarantine:
        logging.warning('prepare: %s', lost)
    questions = [
        question.to_json() | {'record': index[pair.video_id, pair.sound_id]}
        for pair in pairs
        if (pair.video_id, pair.sound_id) in index
        for question in pair.questions
    ]
    write_tables(folder, videos, questions)
    _report_cut(folder, videos, used_seconds)
    summary = {
        'videos': len(videos),
        'questions': dict(collections.Counter(question['split'] for question in questions)),
        'quarantined': len(quarantine),
        'reasons': dict(
            collections.Counter(_short_reason(entry['reason']) for entry in quarantine)
        ),
        'malformed_rows': len(json.loads((folder / 'malformed_rows.json').read_text('utf-8'))),
    }
    logging.info('prepare: %s', summary)
    return summary


def _report_cut(folder: Path, videos: Sequence[Mapping], used_seconds: float) -> None:
    """Name the videos of which only the beginning is used, in the log and in `remarks.json`."""
    cut = [
        f'{video["sound_id"]} ({video["seconds"]:.0f} s)'
        for video in videos
        if video_arrays.is_cut(video['seconds'], used_seconds)
    ]
    if cut:
        sentence = f'only the first {used_seconds:g} s count of {len(cut)} longer videos'
        logging.warning('prepare: %s: %s', sentence, first_few(cut, ', '))
        remarks = json.loads((folder / 'remarks.json').read_text('utf-8'))
        write_json(folder / 'remarks.json', [*remarks, f'{sentence}: {", ".join(cut)}'])


def _describe_lost(pairs: Sequence[Pair], index: Mapping[tuple[str, str], int]) -> str:
    """Say what the test set loses if the pairs that are not in `index` are left out."""
    test = [
        (pair.video_id, pair.sound_id) in index
        for pair in pairs
        for question in pair.questions
        if question.split == 'test'
    ]
    return describe_test_set(test.count(False), len(test))


def _short_reason(reason: str) -> str:
    """Drop the names and numbers from a reason, so that equal reasons can be counted."""
    return re.split('[:(]', reason)[0].strip()
