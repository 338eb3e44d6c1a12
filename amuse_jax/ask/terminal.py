"""Answers on a terminal."""

import hashlib
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from amuse_jax.ask.model import Model, UnfamiliarQuestion


def answer_all(model: Model, video: str, questions: Iterable[str], page_folder: Path) -> None:
    """Print the answer to each question about a video, and draw its page.

    Args:
      model: the model.
      video: the video's path.
      questions: the questions; each is answered before the next one is read.
      page_folder: the folder for the pages.

    Raises:
      StageError: the video or a question cannot be used.
    """
    watched = model.watch(video)
    for question in questions:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', UnfamiliarQuestion)  # the notes say the same
            answer = watched.ask(question)
        page = answer.page(page_folder / f'{page_name(watched.path, question)}.png')
        print(f'\n{answer}\n\npage: {page}')


def page_name(video: Path, question: str) -> str:
    """Return a file name that contains the video's name and differs between questions."""
    stem = re.sub(r'[^A-Za-z0-9_-]+', '-', video.stem)[:80]
    return f'{stem}-{hashlib.sha256(question.encode()).hexdigest()[:8]}'
