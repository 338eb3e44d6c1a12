"""Fixtures: a data set of tiny records with the output of all stages before training."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from amuse_jax.config import default_config
from amuse_jax.data import records
from amuse_jax.music_avqa import Question, vocabulary
from tests.training import processes

VIDEOS = {'train': 9, 'val': 3, 'test': 2}
SEGMENTS, REGIONS, MELS, FRAMES, SIDE, FEATURES = 3, 2, 16, 20, 32, 8
CLASSES = (*vocabulary.INSTRUMENTS, 'player')
HERE = Path(__file__).parent


def tiny_config():
    """Return a config with the smallest towers that have all parts."""
    config = default_config()
    config.name = 'tiny'
    config.data.update(segments=SEGMENTS, image_size=SIDE)
    config.audio.mels = MELS
    config.rois.update(regions=REGIONS, feature_size=FEATURES)
    tower = dict(
        image_size=SIDE, patch=4, width=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 2), window=4
    )
    config.model.visual.update(tower)
    config.model.audio.update(tower)
    config.model.text.update(
        tokenizer='questions', max_words=16, width=32, depth=2, heads=2, mlp_width=32
    )
    config.model.adapters.update(rounds=2, width=16, heads=2, mlp_width=16)
    config.model.answer.update(width=32, heads=2, layers=1, mlp_width=32)
    config.pretrain.update(
        epochs=2, batch_size=4, segments=2, predictor_width=16, mix=0.5, swap=0.3,
        predictor_epochs=4,
    )  # fmt: skip
    config.train.update(
        head_epochs=8, epochs=2, batch_size=4, questions=2, head_learning_rate=3e-3,
        learning_rate=1e-3, towers_from='sources',
    )  # fmt: skip
    config.loop.update(log_steps=2, checkpoint_seconds=0.5, optimization_level=0)
    config.evaluate.batch_size = 4
    return config


@pytest.fixture(scope='package', autouse=True)
def quick_compilation():
    """Turn off most optimisations: the models are tiny, so compilation takes most of the time."""
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture
def start_toy():
    """A function that starts toy_job.py, or a similar script, and returns its processes.

    It takes the folder, the number of processes and the number of devices of each. Processes that
    still run at the end of the test are killed.
    """
    started = []

    def start(
        folder: Path, count: int = 1, devices: int = 1, script: str = 'toy_job.py', **options
    ):
        folder.mkdir(exist_ok=True)
        command = [sys.executable, HERE / script, folder, json.dumps(options)]
        port, environment = processes.free_port(), processes.environment(devices)
        for index in range(count):
            several = [str(port), str(index), str(count)] if count > 1 else []
            log = folder / f'log{index}'
            started.append(processes.start(command + several, log, env=environment))
        return started[-count:]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """(config, folders of prepare, annotate and rois). Each video has one colour and one class."""
    root = tmp_path_factory.mktemp('tiny')
    inputs = {name: root / name for name in ('prepare', 'annotate', 'rois')}
    for folder in inputs.values():
        folder.mkdir()
    random = np.random.default_rng(0)
    videos, questions, rows = [], [], []
    for split, count in VIDEOS.items():
        for _ in range(count):
            index = len(videos)
            kind = index % 2
            videos.append(_record(random, index, kind))
            for number in range(1 + index % 4):
                questions.append(_question(index, number, split, kind))
                rows.append({**dataclasses.asdict(questions[-1]), 'record': index})
    contents = [
        {name: video[name] for name in ('video_id', 'sound_id', 'seconds')} for video in videos
    ]
    (inputs['prepare'] / 'records').mkdir()
    writer = records.ShardWriter(
        inputs['prepare'] / 'records' / '00000-of-00001.array_record',
    )
    for video in videos:
        writer.write(video)
    writer.close({'videos': contents, 'quarantine': []})
    (inputs['prepare'] / 'videos.json').write_text(json.dumps(contents))
    (inputs['prepare'] / 'questions.json').write_text(json.dumps(rows))
    _write_labels(random, inputs['annotate'], len(videos))
    _write_regions(random, inputs['rois'], len(videos))
    return tiny_config(), inputs


def _record(random, index, kind):
    frames = np.full((SEGMENTS, SIDE, SIDE, 3), 60 + 120 * kind)
    log_mel = random.normal(-40 + 10 * kind, 5, (SEGMENTS, FRAMES, MELS))
    return {
        'video_id': f'video{index}',
        'sound_id': f'video{index}',
        'seconds': 6.0 * SEGMENTS,
        'frames': (frames + random.integers(-20, 20, frames.shape)).astype(np.uint8),
        'frame_mask': np.ones(SEGMENTS, bool),
        'log_mel': log_mel.astype(np.float16),
        'audio_mask': np.ones(SEGMENTS, bool),
        'questions': [],
    }


def _question(index, number, split, kind):
    template = 'Where is the performance?' if number % 2 else 'Is there a voiceover?'
    answers = ('indoor', 'outdoor') if number % 2 else ('yes', 'no')
    return Question(
        question_id=f'{index}-{number}',
        video_id=f'video{index}',
        sound_id=f'video{index}',
        split=split,
        modality='Visual',
        kind='Location',
        template=template,
        values=(),
        text=template,
        answer=answers[kind],
    )


def _write_labels(random, folder, count):
    sources = np.zeros((count, SEGMENTS, len(vocabulary.INSTRUMENTS)), np.float32)
    sources[np.arange(count), :, np.arange(count) % 2] = 1
    np.save(folder / 'sources.npy', sources)
    np.save(folder / 'rhythm.npy', random.integers(0, 2, (count, SEGMENTS)).astype(np.float32))


def _write_regions(random, folder, count):
    shape = (count, SEGMENTS, REGIONS)
    corners = random.uniform(0, 0.5, (*shape, 2))
    boxes = np.concatenate([corners, corners + 0.3], axis=-1)
    classes = np.tile((np.arange(count) % 2)[:, None, None], (1, SEGMENTS, REGIONS))
    classes[..., -1] = -1
    np.save(folder / 'boxes.npy', boxes.astype(np.float16))
    np.save(folder / 'classes.npy', classes.astype(np.int16))
    np.save(folder / 'scores.npy', random.uniform(0.3, 1, shape).astype(np.float16))
    features = random.normal(size=(*shape, FEATURES)).astype(np.float16)
    np.save(folder / 'features.npy', features)
    (folder / 'classes.json').write_text(json.dumps(CLASSES))


@pytest.fixture(scope='session')
def pretrained(tiny, tmp_path_factory):
    """(config, folders up to pretrain, the summary of pretrain)."""
    from amuse_jax.training.pretrain import stage as pretrain

    config, inputs = tiny
    folder = tmp_path_factory.mktemp('pretrain')
    summary = pretrain.run(config, folder, inputs)
    return config, inputs | {'pretrain': folder}, summary


@pytest.fixture(scope='session')
def trained(pretrained, tmp_path_factory):
    """(config, folders up to train, the summary of train)."""
    from amuse_jax.training.train import stage as train

    config, inputs, _ = pretrained
    folder = tmp_path_factory.mktemp('train')
    summary = train.run(config, folder, inputs)
    return config, inputs | {'train': folder}, summary
