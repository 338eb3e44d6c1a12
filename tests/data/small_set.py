"""Writes a small data set and runs the stage prepare on it."""

import hashlib
import json

from amuse_jax.config import default_config
from amuse_jax.data import stage as prepare

SPLITS = ('train', 'val', 'test')


def row(video_id, answer='yes', **changes):
    return {
        'video_id': video_id,
        'type': '["Audio", "Counting"]',
        'question_content': 'Is there a <Object> sound?',
        'templ_values': '["violin"]',
        'anser': answer,
        **changes,
    }


def write_rows(root, *rows):
    """Write annotation files; each split gets every third row, so that no split is empty."""
    for index, split in enumerate(SPLITS):
        (root / f'avqa-{split}.json').write_text(json.dumps(rows[index::3]))


def settings(root, **changes):
    config = default_config()
    config.data.update(
        root=str(root), segments=3, segment_seconds=2.0, image_size=16, shard_videos=2, workers=1
    )
    config.data.update(changes)
    return config


def run(root, folder, **changes):
    folder.mkdir(exist_ok=True)
    return prepare.run(settings(root, **changes), folder, {})


def read_json(folder, name):
    return json.loads((folder / f'{name}.json').read_text())


def write_small_set(root, media, count=4):
    """Write videos of six seconds, with one question each; `media` is the fixture."""
    (root / 'videos').mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = media.Picture(seconds=6, fps=4 + index)
        media.write(root / f'videos/v{index}.mp4', picture, media.Sound(seconds=6))
    write_rows(root, *[row(f'v{index}') for index in range(count)])


def digests(folder):
    files = [path for path in folder.rglob('*') if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
