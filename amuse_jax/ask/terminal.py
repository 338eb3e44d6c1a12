"""Answers on a terminal, or as JSON for programs."""

import hashlib
import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from amuse_jax.ask.video import UnfamiliarQuestion, Video
from amuse_jax.errors import QuestionError

PROMPT = 'question: '


def answer_all(
    video: Video, questions: Iterable[str], page_folder: Path | None, *, as_json: bool
) -> bool:
    """Print the answer to each question about a video before the next question is read.

    A question that cannot be answered is one sentence on stderr; with `as_json` it is an object
    with the keys 'question' and 'error' instead, so that there is one line for each question.

    Args:
      video: the video.
      questions: the questions.
      page_folder: see `show`.
      as_json: see `show`.

    Returns:
      Whether every question was answered.
    """
    is_complete = True
    for question in questions:
        try:
            show(video, question, page_folder, as_json=as_json)
        except QuestionError as error:
            is_complete = False
            if as_json:
                _print_json({'question': question, 'error': str(error)})
            else:
                print(f'amuse_jax: {error}', file=sys.stderr, flush=True)
    return is_complete


def show(video: Video, question: str, page_folder: Path | None, *, as_json: bool = False) -> None:
    """Print the answer to a question about a video.

    Args:
      video: the video.
      question: the question.
      page_folder: the folder for the answer's page; None for no page.
      as_json: whether to print `Answer.to_json` in one line, with the file of the page as 'page'.

    Raises:
      QuestionError: the question has no answer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UnfamiliarQuestion)  # the notes say the same
        answer = video.ask(question)
    page = None
    if page_folder is not None:
        page = str(answer.page(page_folder / f'{page_name(video.path, question)}.png'))
    if as_json:
        _print_json(answer.to_json() | ({'page': page} if page else {}))
    else:
        print('\n'.join(['', str(answer), *(['', f'page: {page}'] if page else [])]), flush=True)


def typed_questions() -> Iterator[str]:
    """Read questions from stdin, one a line, and skip blank lines.

    On a terminal there is a prompt, and Ctrl-D or Ctrl-C ends the questions.
    """
    prompt = ''
    if sys.stdin is None:  # closed
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        import readline  # noqa: F401  lets `input` edit the line and recall earlier ones

        prompt = f'\n{PROMPT}'
    while True:
        try:
            question = input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            if prompt:
                print()
            return
        if question:
            yield question


def page_name(video: Path, question: str) -> str:
    """Return a file name that contains the video's name and differs between questions."""
    stem = re.sub(r'[^A-Za-z0-9_-]+', '-', video.stem)[:80]
    return f'{stem}-{hashlib.sha256(question.encode()).hexdigest()[:8]}'


def _print_json(value: dict) -> None:
    print(json.dumps(value), flush=True)
