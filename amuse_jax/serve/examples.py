"""Rendered performances to try the page with."""

import json
import shutil
from pathlib import Path

from amuse_jax.system import paths

COUNT = 6


def copy(source: str, folder: Path) -> list[Path]:
    """Copy performances that the model has not been trained on.

    Args:
      source: the model, as `amuse_jax.load` takes it.
      folder: where to copy them. Their names there do not tell where they come from.

    Returns:
      The copies, at most COUNT; none if the model is no workdir with rendered performances.
    """
    render = paths.from_user(source, 'the model') / 'render'
    questions = render / 'avqa-test.json'
    if not questions.is_file():
        return []
    names = sorted({row['video_id'] for row in json.loads(questions.read_text('utf-8'))})
    found = [path for name in names if (path := render / f'videos/{name}.mp4').is_file()]
    folder.mkdir()
    return [
        Path(shutil.copy(path, folder / f'performance-{index}.mp4'))
        for index, path in enumerate(found[:COUNT], 1)
    ]
