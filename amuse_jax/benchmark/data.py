"""Measurements of preparing videos and of reading records, each on one core.

The videos are synthetic performances, rendered here.
"""

import time
from fractions import Fraction
from pathlib import Path

import av
from absl import logging
from ml_collections import ConfigDict

from amuse_jax.benchmark import inputs, processes
from amuse_jax.benchmark.timing import Times
from amuse_jax.data import pipeline, question_table, records
from amuse_jax.data import stage as prepare
from amuse_jax.data.pipeline import QuestionBatches
from amuse_jax.data.prepared import Prepared, write_tables
from amuse_jax.data.records import ShardWriter
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.media import guarded
from amuse_jax.media.log_mel import LogMel
from amuse_jax.synthetic import stage as render
from amuse_jax.synthetic.score.score import SECONDS
from amuse_jax.system.files import write_atomically
from amuse_jax.system.processes import this_process

WIDTH, HEIGHT, FPS = 640, 360, 30
VIDEOS = 3  # one per split
RECORDS = 64  # copies of the three videos' records: more than a processor's cache holds
BATCHES = 32  # in a measured round of reading
KEY_FRAME_SECONDS = 10  # in published videos; rendered videos have a key frame every second


def input_pipeline(config: ConfigDict, folder: Path, rounds: int, keep_memory: bool) -> list[dict]:
    """Measure the reading of training batches with frames and log-mels, from records to arrays.

    The records were just written or read, so they come from the system's page cache and no time is
    spent on the disk. A sample is a video: its frames, its log-mels, stored features and regions,
    and some of its questions. Training reads in the same way (pipeline.QuestionBatches with a
    reader).

    Args:
      config: the sizes.
      folder: the folder for videos and records.
      rounds: number of measured repetitions.
      keep_memory: whether the process keeps freed memory.

    Returns:
      The row, in a list.
    """
    _render_videos(config, folder)
    _write_repeated_records(config, folder)
    seconds = processes.run(
        _read_seconds, config, folder, rounds, keep_memory=keep_memory, one_core=True
    )  # per sample
    name = 'input pipeline, from records, per core'
    return [_row(name, Times(tuple(seconds)))]


def prepare_videos(config: ConfigDict, folder: Path, rounds: int, keep_memory: bool) -> list[dict]:
    """Measure what a worker of the stage `prepare` does per video: frames, log-mel, record.

    This is measured twice: for videos as they are rendered here, with a key frame per second, and
    for a video that is encoded as published ones are, with a key frame every ten seconds and frames
    that refer to later frames.

    Args:
      config: the sizes.
      folder: the folder for videos and records.
      rounds: number of measured repetitions.
      keep_memory: whether the process keeps freed memory.

    Returns:
      The two rows.
    """
    root = _render_videos(config, folder)
    published = _encode_as_published(root, folder / 'published')
    rows = []
    size = f'{SECONDS:.0f} s of {WIDTH}x{HEIGHT} video'
    for name, source in (
        (f'prepare, per core: {size}', root),
        (f'prepare, per core: {size}, key frames {KEY_FRAME_SECONDS} s apart', published),
    ):
        seconds = processes.run(
            _prepare_seconds, config, source, folder, rounds, keep_memory=keep_memory, one_core=True
        )
        rows.append(_row(name, Times(tuple(seconds))))
    return rows


def _row(work: str, times: Times) -> dict:
    return {
        'work': work,
        'samples': 1,
        'seconds': {'JAX': times.median},
        'spread': {'JAX': times.spread},
        'samples_per_second': {'JAX': 1 / times.median},
    }


def _render_videos(config: ConfigDict, folder: Path) -> Path:
    """Render the performances unless they exist, and return the data set's folder."""
    root = folder / 'performances'
    settings = config.synthetic.copy_and_resolve_references()
    with settings.unlocked():
        settings.update(videos=VIDEOS, width=WIDTH, height=HEIGHT, fps=FPS)
    if not (root / 'avqa-test.json').exists():
        logging.info('benchmark: rendering %d videos', VIDEOS)
        render.render(settings, root, workers=1)
    return root


def _encode_as_published(root: Path, folder: Path) -> Path:
    """Encode the first video again as published videos are, and return the data set's folder."""
    source = min((root / 'videos').iterdir())
    target = folder / 'videos' / source.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda temporary: _encode(source, temporary))
    return folder


def _encode(source: Path, target: Path) -> None:
    """Encode a video with libx264's defaults, except the key frame distance; copy its audio."""
    options = {'g': str(KEY_FRAME_SECONDS * FPS), 'threads': '1'}
    with av.open(str(source)) as reader, av.open(str(target), 'w', format='mp4') as writer:
        video = writer.add_stream('libx264', rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        audio = writer.add_stream_from_template(reader.streams.audio[0])
        for packet in reader.demux(reader.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = audio
                writer.mux(packet)
        reader.seek(0)
        for index, frame in enumerate(reader.decode(reader.streams.video[0])):
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            frame.pict_type = av.video.frame.PictureType.NONE
            writer.mux(video.encode(frame))
        writer.mux(video.encode(None))


def _prepare_seconds(config: ConfigDict, root: Path, folder: Path, rounds: int) -> list[float]:
    """Return the seconds per video, without the first video, which compiles the log-mel."""
    log_mel = LogMel.from_settings(config)
    limits = guarded.Limits.from_settings(config.data)
    settings = prepare.WorkerSettings(root, config.data.image_size, log_mel, limits, this_process())
    names = sorted(path.stem for path in (root / 'videos').iterdir())
    seconds = []
    for index in range(rounds + 1):
        name = names[index % len(names)]
        path = folder / f'prepared{records.SUFFIX}'
        start = time.perf_counter()
        prepare.write_records(settings, [prepare.Pair(name, name, (), (None, None))], path)
        seconds.append(time.perf_counter() - start)
        if records.read_contents(path)['quarantine']:
            raise StageError(f'{root} holds a video that cannot be prepared: {name}')
        path.unlink()
    return seconds[1:]


def _write_repeated_records(config: ConfigDict, folder: Path) -> None:
    """Prepare the videos and write RECORDS copies of their records and questions.

    The files are in the format of the stage `prepare`.
    """
    target = folder / 'records' / f'00000-of-00001{records.SUFFIX}'
    if target.exists():
        return
    prepared = folder / 'prepared'
    prepared.mkdir(exist_ok=True)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.update(root='', workers=1)
    prepare.run(config, prepared, {'render': folder / 'performances'})
    originals = Prepared(prepared)
    reader = originals.reader()
    names = [f'video{index:04d}' for index in range(RECORDS)]
    videos = [{'video_id': name, 'sound_id': name} for name in names]

    def write(path: Path) -> None:
        writer = ShardWriter(path)
        for index, name in enumerate(names):
            writer.write(reader[index % len(reader)] | {'video_id': name, 'sound_id': name})
        writer.close({'videos': videos})

    rows = [
        question | {'record': index, 'split': 'train'}
        for index in range(RECORDS)
        for question in originals.rows
        if question['record'] == index % len(reader)
    ]
    write_tables(folder, videos, rows)
    write_atomically(target, write)


def _read_seconds(config: ConfigDict, folder: Path, rounds: int) -> list[float]:
    """Return the seconds per sample of each round; the first batch is not measured."""
    text = config.model.text.copy_and_resolve_references()
    with text.unlocked():
        text.tokenizer = 'questions'
    batches = QuestionBatches(
        table=question_table.read(folder, QuestionTokenizer(text)),
        split='train',
        size=config.train.questions,
        videos=config.train.batch_size,
        arrays=inputs.random_features(config, RECORDS),
        reader=Prepared(folder).reader(),
    )
    videos = config.train.batch_size
    epochs = -(-videos * BATCHES * (rounds + 1) // RECORDS)
    iterator = pipeline.iterate(batches.epochs(epochs, seed=0, parts=1))
    next(iterator)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(BATCHES):
            next(iterator)
        seconds.append((time.perf_counter() - start) / (BATCHES * videos))
    return seconds
