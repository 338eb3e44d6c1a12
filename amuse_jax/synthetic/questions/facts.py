"""What can be said about a performance beyond dispute, and by which margins.

A fact is not stated where it hangs by less than the margins below, or on a reading of the words:
two of a kind where "the violin" is meant, somebody between the places, somebody heard but not seen.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.synthetic.score.score import Performer, Score

LOUDER_DB = 4.0  # between two who are compared
RHYTHMIC_RATIO = 1.5  # of notes per second
LONGER_SECONDS = 6.0  # of sounding time
ENTRY_SECONDS = 6.0  # between two who come in one after the other
TOGETHER_SECONDS = 0.25  # at most between two who come in simultaneously
OVERLAP_SECONDS = 4.0  # at least of sounding at the same time; those who do not have none
ALWAYS_SECONDS = 0.5  # at most of silence at either end of who is always playing
PAUSE_SECONDS = 6.0  # at least of silence of who is not
ABSENT = 2  # instruments not in the performance that are asked for


def yes(true: bool) -> str:
    return 'yes' if true else 'no'


def visible(score: Score) -> list[Performer]:
    return [p for p in score.performers if p.visible]


def sounding(score: Score) -> list[Performer]:
    return [p for p in score.performers if p.sounds]


def genuine(score: Score) -> bool:
    """Every sound is seen, and comes from the instrument that is seen."""
    return all(p.visible and p.heard == p.instrument for p in sounding(score))


def absent(score: Score) -> list[str]:
    """A few instruments that are neither seen nor heard, drawn by the score's seed."""
    present = {p.instrument for p in score.performers} | {p.heard for p in score.performers}
    names = [name for name in INSTRUMENTS if name not in present]
    rng = np.random.default_rng((score.seed, 2))
    return [names[i] for i in rng.choice(len(names), size=ABSENT, replace=False)]


def seen(score: Score) -> dict[str, list[Performer]]:
    """Visible performers by instrument."""
    kinds = defaultdict(list)
    for performer in visible(score):
        kinds[performer.instrument].append(performer)
    return dict(kinds)


def heard(score: Score) -> dict[str, list[Performer]]:
    """Sounding performers by the instrument that is heard."""
    kinds = defaultdict(list)
    for performer in sounding(score):
        kinds[performer.heard].append(performer)
    return dict(kinds)


def single(kinds: dict[str, list[Performer]]) -> list[Performer]:
    """Those who are the only one of their kind."""
    return [group[0] for group in kinds.values() if len(group) == 1]


def at(score: Score) -> dict[str, Performer]:
    """Who is on the left, on the right and in the middle, where of an even number nobody is."""
    row = visible(score)
    if len(row) == 1:
        return {}
    places = {'left': row[0], 'right': row[-1]}
    if len(row) % 2:
        places['middle'] = row[len(row) // 2]
    return places


def place(score: Score, performer: Performer) -> str | None:
    return next((place for place, other in at(score).items() if other is performer), None)


def beside(score: Score, performer: Performer) -> Iterator[tuple[str, str]]:
    """(left or right, instrument) where everyone on that side of the performer plays the same."""
    row = visible(score)
    index = row.index(performer)
    for side, others in (('left', row[:index]), ('right', row[index + 1 :])):
        kinds = {p.instrument for p in others}
        if len(kinds) == 1:
            yield side, kinds.pop()


def entries(score: Score) -> list[Performer]:
    return sorted(sounding(score), key=lambda p: p.intervals[0][0])


def first_and_last(score: Score) -> dict[str, Performer]:
    """Who comes in before, and after, all others by ENTRY_SECONDS."""
    order = entries(score)
    starts = [p.intervals[0][0] for p in order]
    found = {}
    if len(order) > 1 and starts[1] - starts[0] >= ENTRY_SECONDS:
        found['first'] = order[0]
    if len(order) > 1 and starts[-1] - starts[-2] >= ENTRY_SECONDS:
        found['last'] = order[-1]
    return found


def overlap(one: Performer, other: Performer) -> float:
    """Seconds in which both sound."""
    return sum(
        max(0.0, min(a_end, b_end) - max(a_start, b_start))
        for a_start, a_end in one.intervals
        for b_start, b_end in other.intervals
    )


def louder(one: Performer, other: Performer) -> str | None:
    difference = one.gain_db - other.gain_db
    return yes(difference > 0) if abs(difference) >= LOUDER_DB else None


def more_rhythmic(one: Performer, other: Performer) -> str | None:
    fewer, more = sorted((one.notes_per_second, other.notes_per_second))
    if more < RHYTHMIC_RATIO * fewer:
        return None
    return yes(one.notes_per_second > other.notes_per_second)


def longer(one: Performer, other: Performer) -> str | None:
    difference = one.sounding_seconds - other.sounding_seconds
    return yes(difference > 0) if abs(difference) >= LONGER_SECONDS else None


Compare = Callable[[Performer, Performer], str | None]
