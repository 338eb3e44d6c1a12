"""What the page does when a visitor chooses a video or asks a question.

Visitors see sentences of this package alone. The messages of other errors, which may name files of
this machine, go to the log.
"""

import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import gradio as gr

from amuse_jax.errors import QuestionError, VideoError
from amuse_jax.serve import fragments
from amuse_jax.serve.sessions import Sessions

LONGEST_QUESTION = 300  # characters
_MOST_ASKED = 20  # questions in the table

Row = tuple[str, str, float]  # question, answer and its probability


class Shown(NamedTuple):
    """What the page shows: HTML of the status line and of the answer, and earlier questions.

    The fields are in the order of the page's components.
    """

    status: str
    answer: str = ''
    evidence: str = ''
    table: str = ''
    asked: tuple[Row, ...] = ()


class Handlers:
    """The work of the page's events.

    Args:
      sessions: the visitors and their videos.
    """

    def __init__(self, sessions: Sessions):
        self._sessions = sessions

    def watch(self, path: str | None, request: gr.Request, progress=gr.Progress()) -> Shown:  # noqa: B008
        """Watch the video that a visitor has chosen."""
        clock = _Clock(progress)
        if self._sessions.choose(request.session_hash, path) is None:
            return Shown('' if path is None else fragments.failure(_GONE))
        try:
            self._sessions.watch(request.session_hash, clock.begin)
        except Exception as error:
            return Shown(fragments.failure(_explain(error)))
        ready = fragments.message('The video is ready for any number of questions.')
        return Shown(fragments.steps(clock.stop()) + ready)

    def ask(
        self,
        question: str,
        asked: tuple[Row, ...],
        request: gr.Request,
        progress=gr.Progress(),  # noqa: B008
    ) -> Shown:
        """Answer a question about the video that the visitor has chosen."""
        clock = _Clock(progress)
        try:
            video = self._sessions.watch(request.session_hash, clock.begin)
            if video is None:
                return Shown(fragments.failure(_NO_VIDEO))
            clock.begin('answering')
            answer = video.ask(question.strip()[:LONGEST_QUESTION])
            asked = (*asked, (answer.question, answer.text, answer.probabilities[answer.text]))
            asked = asked[-_MOST_ASKED:]
            pieces = fragments.answer(answer), fragments.evidence(answer), fragments.asked(asked)
        except Exception as error:
            failed = fragments.failure(_explain(error))
            return Shown(failed, table=fragments.asked(asked), asked=asked)
        return Shown(fragments.steps(clock.stop()), *pieces, asked)

    def leave(self, request: gr.Request) -> None:
        """Delete what a visitor who has left the page had uploaded."""
        self._sessions.end(request.session_hash)


_NO_VIDEO = 'There is no video: drop one, record one, or pick an example.'
_GONE = 'This video is not on the server any more: choose it again.'
_UNEXPECTED = 'Something went wrong on the server; its log says what. Try again, or another video.'


def _explain(error: Exception) -> str:
    """Return a sentence about an error that names no file, and log an error of another kind."""
    if isinstance(error, VideoError):
        return f'This video cannot be used: {error.reason}.'
    if isinstance(error, QuestionError):  # its messages name no file
        text = str(error)
        return f'{text[:1].upper()}{text[1:]}.'
    traceback.print_exception(error)
    return _UNEXPECTED


class _Clock:
    """Tells the visitor which step runs, and measures how long each one takes."""

    def __init__(self, progress: Callable):
        self._progress = progress
        self._times: dict[str, float] = {}
        self._step, self._start = '', 0.0

    def begin(self, step: str) -> None:
        """End the step before, if any, and begin this one."""
        self.stop()
        self._step, self._start = step, time.perf_counter()
        number = fragments.STEPS.index(step)
        self._progress((number, len(fragments.STEPS)), desc=step.capitalize(), unit='steps')

    def stop(self) -> dict[str, float]:
        """End the step, and return the seconds that each one took."""
        if self._step:
            self._times[self._step] = time.perf_counter() - self._start
            self._step = ''
        return self._times
