"""The errors that a user can act on, and helpers for their messages."""

from collections.abc import Sequence

_NAMED = 5


class StageError(Exception):
    """A problem that the user can fix.

    The message says what was found, what was expected and what to do.
    """


class VideoError(StageError):
    """A video cannot be used.

    Attributes:
      path: the file.
      reason: why; a sentence that does not name the file.
    """

    def __init__(self, path, reason: str):
        super().__init__(f'{path} cannot be used: {reason}')
        self.path, self.reason = path, reason


class QuestionError(StageError):
    """A question cannot be answered."""


class PartDone(Exception):
    """The part of a stage that `data.part` names is done; another run puts the parts together."""


class NewerFormat(StageError):
    """A newer version of amuse_jax wrote the file. It is intact and must not be deleted."""


def first_few(names: Sequence[str], separator: str) -> str:
    """Return the first five names, joined by `separator`, and the number of all others.

    Example: 'a, b, c, d, e, and 7 more'.
    """
    more = [f'and {len(names) - _NAMED:,} more'] if len(names) > _NAMED else []
    return separator.join([*names[:_NAMED], *more])


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; its class if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
