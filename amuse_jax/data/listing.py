"""The first of many, for messages."""

from collections.abc import Sequence

_NAMED = 5


def some(names: Sequence[str], separator: str) -> str:
    """'a, b, c, d, e, and 7 more': the first five, joined by `separator`, and how many follow."""
    more = [f'and {len(names) - _NAMED:,} more'] if len(names) > _NAMED else []
    return separator.join([*names[:_NAMED], *more])
