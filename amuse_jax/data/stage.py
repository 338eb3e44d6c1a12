"""The stage `prepare` (Sec. 4.1): one record per video, with its frames, log-mel and questions.

A record holds what the model sees of a video: the picture at the middle of each of T segments and
the log-mel of each segment's sound. A video without picture or without sound is set aside, as is
one that is cut off; one that is shorter than T segments is padded and masked, a longer one cut.
Files are read in a process of their own (media/guarded.py), so one that makes its reader hang or
die is set aside too.
Version 2 of MUSIC-AVQA asks about pictures with another video's sound: each pair is a record.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.data import records
from amuse_jax.data.prepared import Prepared, write_tables
from amuse_jax.errors import NewerFormat, StageError, first_few
from amuse_jax.media import guarded, video
from amuse_jax.media.log_mel import LogMel
from amuse_jax.music_avqa import Question
from amuse_jax.system.files import write_json
from amuse_jax.system.processes import this_process
from amuse_jax.system.sharded import map_shards


@dataclasses.dataclass(frozen=True)
class Pair:
    """What becomes one record.

    Attributes:
      video_id: whose picture.
      sound_id: whose sound.
      questions: all of its questions, of every split.
      sizes: bytes of the two files, None where a file is missing.
    """

    video_id: str
    sound_id: str
    questions: tuple[Question, ...]
    sizes: tuple[int | None, int | None]


@dataclasses.dataclass(frozen=True)
class Work:
    """What every worker needs to know.

    Attributes:
      root: of the data set.
      image_size: S.
      log_mel: the front end.
      limits: of reading a file.
      launcher: the process that shares out the work, as `shards.this_process` names it.
    """

    root: Path
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
    """Runs the stage; see the module.

    Args:
      config: the whole config; `data` and `audio` are read.
      folder: gets `records/*.array_record`, `videos.json`, `questions.json`, `quarantine.json`,
        `malformed_rows.json` and `remarks.json`, on rows that are not taken as they are written.
      inputs: 'render' where the data set is a rendered one.
      splits: whose questions and videos to take, beside rephrased ones.

    Returns:
      {'videos', 'questions': per split, 'quarantined', 'reasons': counts, 'malformed_rows'}.

    Raises:
      StageError: the data set is not there or empty, more of it is broken than
        `data.max_broken_share` allows.
    """
    root = music_avqa.data_root(config, inputs)
    allowed = config.data.max_broken_share
    pairs = _pairs(root, _questions(root, config.data, folder, splits))
    log_mel = LogMel.from_settings(config)
    limits = guarded.Limits.from_settings(config.data)
    work = Work(root, config.data.image_size, log_mel, limits, this_process())
    folder_of_records = Prepared(folder).records_folder
    _keep_only_fresh(folder_of_records, pairs, work, config.data.shard_videos)
    try:
        paths = map_shards(
            functools.partial(write_records, work),
            pairs,
            folder_of_records,
            suffix=records.SUFFIX,
            shard_size=config.data.shard_videos,
            workers=config.data.workers,
            description='prepare',
            beam=config.data.beam,
        )
    finally:
        guarded.close_shared()  # of this process, where it did the work itself
    return _collect(folder, paths, pairs, allowed)


def read_video(
    reader: guarded.Reader, picture: Path, sound: Path, image_size: int, log_mel: LogMel
) -> dict[str, np.ndarray | float]:
    """What the model sees and hears of one video file; also used to ask about any file.

    Args:
      reader: of the files.
      picture: the file that is seen.
      sound: the file that is heard, mostly the same.
      image_size: S, pixels on a side.
      log_mel: the front end, which knows T and the segments' length.

    Returns:
      'frames' (T, S, S, 3) uint8, 'frame_mask' (T,) bool, 'log_mel' (T, F, M) float16 in dB,
      'audio_mask' (T,) bool, False from the end of the sound on, 'seconds' that the sound lasts.

    Raises:
      MediaError: see `video.read_frames`, `video.read_audio` and `guarded.Reader.read`.
    """
    segments, length = log_mel.segments, log_mel.segment_seconds
    frames, frame_mask = reader.read(
        video.read_segment_frames, picture, segments, length, image_size
    )
    if not frame_mask.any():
        raise video.MediaError(f'it shows nothing in its first {segments * length:g} s')
    try:
        samples, seconds = reader.read(
            video.read_audio, sound, log_mel.sample_rate, segments * length
        )
    except video.MediaError as error:
        if sound == picture:
            raise
        raise video.MediaError(f'{error.reason} (the sound of {sound.stem})') from error
    with _on_cpu():
        spectra = np.asarray(log_mel(samples)).astype(np.float16)
    return {
        'frames': frames,
        'frame_mask': frame_mask,
        'log_mel': spectra,
        'audio_mask': np.arange(segments) * length < seconds,
        'seconds': float(seconds),
    }


def write_records(work: Work, pairs: Sequence[Pair], path: Path) -> None:
    """Writes one shard: the records of `pairs`, and which of them were set aside.

    Raises:
      StageError: a video that was there when the work was shared out is not to be seen.
    """
    if this_process() != work.launcher:
        _use_one_cpu_thread()
    videos, quarantine = [], []
    reader = guarded.shared(work.limits)
    writer = records.ShardWriter(path)
    for pair in pairs:
        names = {'video_id': pair.video_id, 'sound_id': pair.sound_id}
        picture, sound = (music_avqa.video_path(work.root, name) for name in names.values())
        try:
            content = read_video(reader, picture, sound, work.image_size, work.log_mel)
        except video.MediaError as error:
            _check_seen((picture, sound), pair.sizes)
            quarantine.append({'video_id': pair.video_id, 'reason': error.reason})
            continue
        questions = [question.to_json() for question in pair.questions]
        writer.write(names | content | {'questions': questions})
        videos.append(names | {'seconds': content['seconds']})
    limits = dataclasses.asdict(work.limits)
    writer.close(
        {'source': _source(pairs), 'limits': limits, 'videos': videos, 'quarantine': quarantine}
    )


def _check_seen(paths: Sequence[Path], sizes: Sequence[int | None]) -> None:
    """Nothing is wrong with videos whose disk is gone, or was never there on this machine."""
    for path, size in zip(paths, sizes):
        if size is not None and not path.is_file():
            raise StageError(
                f'{path} was there when prepare began, but {this_process()} does not see '
                'it; mount its disk under this path and start the same command again to go on'
            )


def _use_one_cpu_thread() -> None:
    """As many workers run as there are cores, and none may take the accelerator."""
    os.environ['NPROC'] = '1'  # the size of XLA's pools
    jax.config.update('jax_platforms', 'cpu')


def _on_cpu() -> contextlib.AbstractContextManager:
    """The same spectra everywhere, unless JAX was told to do without the CPU."""
    platforms = jax.config.jax_platforms
    if platforms and 'cpu' not in platforms.split(','):
        return contextlib.nullcontext()
    return jax.default_device(jax.local_devices(backend='cpu')[0])


def _questions(
    root: Path, settings: ConfigDict, folder: Path, splits: Sequence[str]
) -> list[Question]:
    annotations = music_avqa.read(root, settings.annotations, settings.rephrased, splits)
    for file in annotations.files:
        rows = len(file.questions) + len(file.malformed)
        if len(file.malformed) > settings.max_broken_share * rows:
            raise StageError(
                f'{len(file.malformed)} of {rows} rows of {file.path} are malformed '
                f'(data.max_broken_share allows {settings.max_broken_share:.0%}): '
                f'{first_few(file.malformed, "; ")}'
            )
        if not file.questions:
            raise StageError(f'{file.path} holds no questions; every split needs some')
    for split, questions in annotations.questions.items():
        if not questions:
            raise StageError(
                f'the split {split} of {root} has no questions (data.annotations is '
                f'{settings.annotations}); every split needs some'
            )
    malformed = [complaint for file in annotations.files for complaint in file.malformed]
    write_json(folder / 'malformed_rows.json', malformed)
    write_json(folder / 'remarks.json', annotations.remarks)
    for complaint in malformed:
        logging.warning('prepare: left out: %s', complaint)
    if annotations.remarks:
        logging.info('prepare: rows not taken as written: %s', first_few(annotations.remarks, '; '))
    return [question for found in annotations.questions.values() for question in found]


def _pairs(root: Path, questions: Iterable[Question]) -> list[Pair]:
    """One pair for each (video, sound), ordered by name."""
    if not (root / 'videos').is_dir():
        raise StageError(
            f'{root} has no folder videos/; expected the videos there as videos/<video_id>.mp4'
        )
    groups = collections.defaultdict(list)
    for question in questions:
        groups[question.video_id, question.sound_id].append(question)
    size = functools.cache(lambda name: _size(music_avqa.video_path(root, name)))
    return [
        Pair(*names, tuple(group), (size(names[0]), size(names[1])))
        for names, group in sorted(groups.items())
    ]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _source(pairs: Sequence[Pair]) -> str:
    """A hash of all that a shard is made from, but for the settings."""
    content = json.dumps([dataclasses.astuple(pair) for pair in pairs])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _keep_only_fresh(folder: Path, pairs: Sequence[Pair], work: Work, shard_videos: int) -> None:
    """Deletes shards of an interrupted run that are damaged or were made from other files, and
    those that other limits have kept videos out of.

    Raises:
      NewerFormat: a newer version of amuse_jax wrote one.
    """
    count = -(-len(pairs) // shard_videos)
    limits = dataclasses.asdict(work.limits)
    for path in folder.glob(f'[0-9]*-of-[0-9]*{records.SUFFIX}'):
        index, _, total = path.name.removesuffix(records.SUFFIX).partition('-of-')
        start = int(index) * shard_videos
        try:
            contents = records.read_contents(path)
        except NewerFormat:
            raise
        except StageError as error:
            logging.warning('prepare: made again: %s', error)
            path.unlink()
            continue
        is_fresh = contents['source'] == _source(pairs[start : start + shard_videos])
        is_limited = contents['quarantine'] and contents.get('limits') != limits
        if not is_fresh or is_limited or int(total) != count:
            path.unlink()


def _collect(folder: Path, paths: Sequence[Path], pairs: Sequence[Pair], allowed: float) -> dict:
    """Writes the tables of all shards, after a look at how much was set aside."""
    videos, quarantine = [], []
    for path in paths:
        contents = records.read_contents(path)
        quarantine += contents['quarantine']
        for position, entry in enumerate(contents['videos']):
            videos.append(entry | {'shard': path.name, 'position': position})
    write_json(folder / 'quarantine.json', quarantine)
    for entry in quarantine:
        logging.warning('prepare: set aside: %s: %s', entry['video_id'], entry['reason'])
    if len(quarantine) > allowed * len(pairs) or not videos:
        named = [f'{entry["video_id"]} ({entry["reason"]})' for entry in quarantine]
        raise StageError(
            f'{len(quarantine)} of {len(pairs)} videos cannot be used (data.max_broken_share '
            f'allows {allowed:.0%}): {first_few(named, ", ")}; {folder / "quarantine.json"} names '
            'all: mend them, or remove their questions, and start again'
        )
    index = {(entry['video_id'], entry['sound_id']): i for i, entry in enumerate(videos)}
    questions = [
        question.to_json() | {'record': index[pair.video_id, pair.sound_id]}
        for pair in pairs
        if (pair.video_id, pair.sound_id) in index
        for question in pair.questions
    ]
    write_tables(folder, videos, questions)
    summary = {
        'videos': len(videos),
        'questions': dict(collections.Counter(question['split'] for question in questions)),
        'quarantined': len(quarantine),
        'reasons': dict(collections.Counter(_kind(entry['reason']) for entry in quarantine)),
        'malformed_rows': len(json.loads((folder / 'malformed_rows.json').read_text())),
    }
    logging.info('prepare: %s', summary)
    return summary


def _kind(reason: str) -> str:
    """A reason without its numbers and names, for counting."""
    return re.split('[:(]', reason)[0].strip()
