"""Writes small folders like those of the stage `prepare`, with random frames and log-mels."""

import json
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.data import records
from amuse_jax.system import formats
from amuse_jax.system.files import write_json

SPLITS = {'train': (0, 1, 2), 'val': (1, 3), 'test': (0, 1)}  # the records with questions in each
ANNOTATIONS = {'v1': 'v1', 'v2': 'v2-balance', 'synthetic': 'plain'}
SHAPES = {'v1': (10, 192, 601), 'v2': (10, 192, 601), 'synthetic': (3, 16, 20)}


def write_prepared(folder: Path, name: str) -> Path:
    """Write five records for the TFDS config `name`, in two shards; the last has no questions."""
    rng = np.random.default_rng(0)
    segments, side, frames = SHAPES[name]
    contents = []
    (folder / 'records').mkdir(parents=True)
    for shard, indices in enumerate([(0, 1, 2), (3, 4)]):
        writer = records.ShardWriter(folder / f'records/{shard:05d}-of-00002{records.SUFFIX}')
        videos = []
        for index in indices:
            video = f'syn{index:08d}' if name == 'synthetic' else f'0000009{index}'
            sound = '00000099' if name == 'v2' and index == 1 else video
            videos.append({'video_id': video, 'sound_id': sound, 'seconds': 6.5 * segments})
            writer.write(
                {
                    **videos[-1],
                    'frames': rng.integers(0, 256, (segments, side, side, 3), np.uint8),
                    'frame_mask': np.arange(segments) < segments - index,
                    'log_mel': rng.normal(-40, 9, (segments, frames, 64)).astype(np.float16),
                    'audio_mask': np.arange(segments) < segments - 1,
                    'questions': [],
                }
            )
        writer.close({'videos': videos, 'quarantine': []})
        contents += videos
    questions = [
        question(f'{split}-{record}-{number}', contents[record], split) | {'record': record}
        for split, chosen in SPLITS.items()
        for record in chosen
        for number in range(1 + record)
    ]
    (folder / 'videos.json').write_text(json.dumps(contents))
    (folder / 'questions.json').write_text(json.dumps(questions))
    manifest = {'format': formats.FORMAT, 'settings': {'data.annotations': ANNOTATIONS[name]}}
    write_json(folder / 'manifest.json', manifest)
    return folder


def question(number: str, video: dict, split: str) -> dict:
    return {
        'question_id': number,
        'video_id': video['video_id'],
        'sound_id': video['sound_id'],
        'split': split,
        'modality': 'Audio',
        'kind': 'Counting',
        'template': 'Are there <Object> and <Object> sound? ',
        'values': ['violin', 'cello'],
        'text': 'Are there violin and cello sound?',
        'answer': 'no',
    }


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
    """The prepared folders by the name of their TFDS config."""
    root = tmp_path_factory.mktemp('prepared')
    return {name: write_prepared(root / name, name) for name in SHAPES}
