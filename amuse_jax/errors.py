"""The errors that a user can act on, and a helper that lists names in their messages."""

from collections.abc import Sequence

_NAMED = 5


class StageError(Exception):
    """A problem that the user can fix.

    The message says what was found, what was expected and what to do.
    """


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
