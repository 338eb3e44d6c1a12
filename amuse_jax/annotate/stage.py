"""The annotate stage: rhythm labels and source frequencies of every record (Sec. 3.2).

The stage reads every sound once and writes the annotations in shards. The shards are kept, so that
a killed run can continue. It then writes, in the order of videos.json, rhythm.npy (N, T) float32,
bpm.npy (N, T + 1) float32, whose last column is the tempo of the whole sound, and sources.npy
(N, T, 22) float32; and report.json. A sound that cannot be read, though prepare has read it, gets
labels of 0 and is named in report.json.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.annotate import rhythm, sources, truth
from amuse_jax.data.prepared import Prepared
from amuse_jax.errors import StageError
from amuse_jax.media import audio, container, guarded
from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.system import gpus, hosts, memory
from amuse_jax.system.files import write_atomically, write_json
from amuse_jax.system.processes import end_with_parent
from amuse_jax.system.sharded import THREADS, map_shards, part_slice

ARRAYS = ('rhythm', 'bpm', 'sources')
_ADVICE = 'end other programs on this device, and run the same command again to continue'


@dataclasses.dataclass(frozen=True)
class Job:
    """Settings of a worker, from the config's sections `data`, `rhythm` and `sources`."""

    root: Path
    videos: str
    limits: guarded.Limits
    segments: int
    segment_seconds: float
    rhythm: dict
    sources: dict


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Annotate all records.

    Args:
      config: the config of the run.
      folder: the stage's folder.
      inputs: folders of `prepare` and, if performances are rendered, `render`.

    Returns:
      Numbers of records and labels, and the precision and recall if the truth is known.

    Raises:
      PartDone: the shards that `data.part` names are written, and others may be missing.
      StageError: the stems cannot be read or separated, a setting is wrong, or a shard is damaged.
    """
    records = Prepared(inputs['prepare']).videos
    job = Job(
        root=Path(music_avqa.data_root(config, inputs)),
        videos=config.data.videos,
        limits=guarded.Limits.from_settings(config.data),
        segments=config.data.segments,
        segment_seconds=config.data.segment_seconds,
        rhythm=config.rhythm.to_dict(),
        sources=config.sources.to_dict(),
    )
    sound_ids = [record['sound_id'] for record in records]
    try:
        paths = _annotate_all(job, sound_ids, folder / 'shards', config)
    finally:
        guarded.close_readers()  # this process has one if it annotated the sounds itself
    arrays, reasons = _merge(paths, len(records))
    unreadable = {sound_id: reason for sound_id, reason in zip(sound_ids, reasons) if reason}
    for sound_id, reason in unreadable.items():
        logging.warning('annotate: %s gets labels of 0: %s', sound_id, reason)
    for name, values in arrays.items():
        write_atomically(folder / f'{name}.npy', functools.partial(_save, values=values))
    report = {
        'records': len(records),
        'stems': job.sources['stems'],
        'unreadable': unreadable,
        'segments_with_rhythm_change': int(arrays['rhythm'].sum()),
        'segments_per_instrument': {
            name: int((arrays['sources'][..., index] > 0).sum())
            for index, name in enumerate(INSTRUMENTS)
        },
    }
    report |= _against_truth(job, sound_ids, arrays)
    write_json(folder / 'report.json', report)
    return {
        name: report[name] for name in report if not name.endswith(('instrument', 'instruments'))
    }


def truth_files(config: ConfigDict) -> str:
    """Return the pattern of the files in truth/ that the labels come from; '' if none."""
    return '*' if config.sources.stems == 'truth' else ''


def annotate_shard(job: Job, sound_ids: Sequence[str], path: Path) -> None:
    """Write the annotations of some sounds to an .npz file with the arrays named in ARRAYS.

    The array 'reasons' says for each sound why it could not be read; '' if it could.
    """
    rhythms, frequencies, reasons = [], [], []
    for sound_id in sound_ids:
        reason = ''
        try:
            changes, heard = _rhythm(job, sound_id), _frequencies(job, sound_id)
        except container.MediaError as error:
            _check_exists(job, sound_id, error)
            (changes, heard), reason = _no_labels(job), error.reason
        except Exception as error:
            error.add_note(f'annotate stopped at the sound of {sound_id}')
            raise
        rhythms.append(changes)
        frequencies.append(heard)
        reasons.append(reason)
    bpm = [np.append(each.bpm, np.float32(each.mean_bpm)) for each in rhythms]
    labels = [each.labels for each in rhythms]
    arrays = {'rhythm': labels, 'bpm': bpm, 'sources': frequencies, 'reasons': reasons}
    np.savez(path, **{name: np.stack(values) for name, values in arrays.items()})


def _check_exists(job: Job, sound_id: str, error: container.MediaError) -> None:
    """Raise StageError if a video is gone, because the disk of all videos may be gone with it."""
    path = music_avqa.video_path(job.root, sound_id, job.videos)
    if not path.is_file():
        raise StageError(
            f'{path} could be read by the prepare stage, but it can no longer be read '
            f'({error.reason}); add prepare to --stages to check the videos again'
        ) from error


def _no_labels(job: Job) -> tuple[rhythm.Rhythm, np.ndarray]:
    """Return the labels of a sound that cannot be read."""
    zeros = np.zeros(job.segments, np.float32)
    silent = np.zeros((job.segments, len(INSTRUMENTS)), np.float32)
    return rhythm.Rhythm(zeros, zeros, 0.0), silent


def _rhythm(job: Job, sound_id: str) -> rhythm.Rhythm:
    rate = job.rhythm['sample_rate']
    return rhythm.annotate(
        _read_sound(job, sound_id, rate),
        rate,
        segments=job.segments,
        segment_seconds=job.segment_seconds,
        rhythm_seconds=job.rhythm['segment_seconds'],
        threshold=job.rhythm['threshold'],
        tracker=job.rhythm['tracker'],
    )


def _frequencies(job: Job, sound_id: str) -> np.ndarray:
    if job.sources['stems'] in ('tags', 'uss-tags'):
        return _frequencies_by_tags(job, sound_id)
    if job.sources['stems'] == 'truth':
        stems, owners, rate = sources.truth_stems(job.root, sound_id)
    else:
        from amuse_jax.pretrained import separation

        rate, owners = separation.SAMPLE_RATE, np.arange(len(INSTRUMENTS))
        separate = separation.load(job.sources['weights'])
        stems = separate(_read_sound(job, sound_id, rate))
    return sources.frequencies(
        stems,
        owners,
        rate,
        segments=job.segments,
        segment_seconds=job.segment_seconds,
        window_seconds=job.sources['window_seconds'],
        threshold_db=job.sources['threshold_db'],
    )


def _frequencies_by_tags(job: Job, sound_id: str) -> np.ndarray:
    """Return the frequencies by the classes that HTS-AT ('tags') or Cnn14 ('uss-tags') finds."""
    from amuse_jax.annotate import sources_tags
    from amuse_jax.pretrained import separation, tagging

    if job.sources['stems'] == 'tags':
        tagger = tagging.load(job.sources['weights'])
    else:
        tagger = separation.load_classifier(job.sources['weights'])
    samples = _read_sound(job, sound_id, separation.SAMPLE_RATE)  # HTS-AT has the same rate
    samples = np.pad(samples, (0, max(tagging.SHORTEST - len(samples), 0)))
    with memory.shortage_as_error('annotate: tags', _ADVICE):
        tags = tagger(samples)
    return sources_tags.frequencies(
        tags,
        segments=job.segments,
        segment_seconds=job.segment_seconds,
        window_seconds=job.sources['window_seconds'],
        threshold=job.sources['threshold_score'],
    )


def _read_sound(job: Job, sound_id: str, sample_rate: int) -> np.ndarray:
    """Read the sound of a video, (samples,) float32, without padding."""
    path = music_avqa.video_path(job.root, sound_id, job.videos)
    length = job.segments * job.segment_seconds
    samples, seconds = guarded.read(job.limits, audio.read_audio, path, sample_rate, length)
    return samples[: round(float(seconds) * sample_rate)]


def _annotate_all(
    job: Job, sound_ids: Sequence[str], folder: Path, config: ConfigDict
) -> list[Path]:
    annotate_all = functools.partial(
        map_shards,
        functools.partial(annotate_shard, job),
        sound_ids,
        folder,
        suffix='.npz',
        shard_size=config.data.shard_videos,
        description='annotate',
        beam=config.data.beam,
        part=config.data.part,
    )
    with _single_threaded_children():
        if job.sources['stems'] == 'truth':
            return annotate_all(workers=config.data.workers)
    # This process may train later and must neither import PyTorch nor start JAX. Each GPU has one
    # worker. Without GPUs one worker is enough, because the networks use all CPUs.
    devices = gpus.visible()
    if job.sources['stems'] == 'uss' and not config.data.beam:
        _log_estimate(job, sound_ids, folder, config, devices)
    if devices and not config.data.beam:
        return annotate_all(workers=len(devices), devices=devices)
    context = multiprocessing.get_context('spawn')
    # One of several processes has started JAX, which locks a TPU.
    platform = 'cpu' if hosts.count() > 1 and not devices else ''
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=_start_worker, initargs=(platform,)
    ) as pool:
        return pool.submit(annotate_all, workers=1).result()


def _start_worker(platform: str) -> None:
    end_with_parent()
    if platform:
        os.environ['JAX_PLATFORMS'] = platform


def _log_estimate(
    job: Job, sound_ids: Sequence[str], folder: Path, config: ConfigDict, devices: Sequence[str]
) -> None:
    """Log how many hours the separation will take, measured on the device that will do it."""
    written = len([*folder.glob('0*.npz')]) * config.data.shard_videos
    sounds = max(len(sound_ids) - written, 0)
    if config.data.part:
        sounds = -(-sounds // part_slice(config.data.part).step)
    if not sounds:
        return
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=end_with_parent
    ) as pool:
        measured = pool.submit(_seconds_per_piece, job.sources['weights'], devices).result()
    workers = max(len(devices), 1)
    logging.info(
        'annotate: %s', estimate(sounds, job.segments * job.segment_seconds, workers, *measured)
    )


def estimate(sounds: int, seconds: float, workers: int, classify: float, separate: float) -> str:
    """Return a sentence that says how many hours the source separation will take.

    Args:
      sounds: number of sounds that are not annotated yet.
      seconds: length of a sound.
      workers: number of processes, one per device.
      classify: seconds to classify one piece of a sound.
      separate: seconds to separate one instrument from a piece.
    """
    from amuse_jax.pretrained import separation

    pieces = sounds * -(-seconds // separation.SEGMENT_SECONDS)
    hours = [
        pieces * (classify + heard * separate) / workers / 3600
        for heard in (0, 2, len(INSTRUMENTS))
    ]
    return (
        f'source separation of {sounds:,} sounds takes about {hours[1]:,.1f} hours with '
        f'{workers} worker{"s" if workers > 1 else ""} where two instruments are heard at a time, '
        f'and at most {hours[2]:,.1f}; classification alone (--config.sources.stems=uss-tags) '
        f'{hours[0]:,.1f}. Measured: {classify:.3f} s to classify {separation.SEGMENT_SECONDS:g} s '
        f'of sound, and {separate:.3f} s to separate an instrument from it'
    )


def _seconds_per_piece(weights: str, devices: Sequence[str]) -> tuple[float, float]:
    """Measure the separator in this process, on the first of the devices."""
    if devices:
        gpus.see_only(devices[0])
    from amuse_jax.pretrained import separation

    return separation.load(weights).seconds_per_piece()


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let worker processes that start inside the block use one thread each.

    There is one worker process per core.
    """
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, '1'))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _merge(paths: Sequence[Path], count: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of all shards, and the reason of every sound that could not be read."""
    reasons: list[str] = []
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as file:
                for name in ARRAYS:
                    parts[name].append(file[name])
                # Shards of earlier versions have no reasons.
                reasons += (
                    file['reasons'].tolist() if 'reasons' in file else [''] * len(file['bpm'])
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StageError(
                f'{path} is damaged ({error}); delete it and run the same command again'
            ) from error
    merged = {name: np.concatenate(values) for name, values in parts.items()}
    assert all(len(values) == count for values in merged.values())
    return merged, reasons


def _save(path: Path, values: np.ndarray) -> None:
    np.save(path, values, allow_pickle=False)


def _against_truth(job: Job, sound_ids: Sequence[str], arrays: Mapping[str, np.ndarray]) -> dict:
    """Compute precision and recall on the sounds whose truth is known; {} if there are none."""
    truths = {index: _truth_of(job, sound_id) for index, sound_id in enumerate(sound_ids)}
    known = [index for index, found in truths.items() if found is not None]
    if not known:
        return {}
    result = truth.report(
        [truths[index] for index in known],
        arrays['rhythm'][known],
        arrays['sources'][known],
        job.segment_seconds,
        job.rhythm['threshold'],
    )
    for name in ('rhythm', 'sources'):
        logging.info(
            'annotate: %s against the truth of %d performances: precision %.3f, recall %.3f',
            name, len(known), result[name]['precision'], result[name]['recall'],
        )  # fmt: skip
    return result


def _truth_of(job: Job, sound_id: str) -> Mapping | None:
    """Return the contents of truth/ID.json; None if there are none, or boxes alone."""
    path = job.root / 'truth' / f'{sound_id}.json'
    if not path.is_file():
        return None
    try:
        found = sources.read_truth(job.root, sound_id)
        if isinstance(found, dict) and not {'tempo', 'performers'} & found.keys():
            return None
        truth.rhythm_changes(found, job.segments, job.segment_seconds, job.rhythm['threshold'])
    except (StageError, LookupError, TypeError, ValueError) as error:
        logging.warning(
            'annotate: the labels of %s are not compared with %s, which is not as rendered '
            'performances have it (%s: %s)', sound_id, path, type(error).__name__, error,
        )  # fmt: skip
        return None
    return found
