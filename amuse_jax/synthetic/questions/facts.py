"""Facts about a performance that nobody can dispute, and the margins that ensure this.

A fact is left out if it holds by less than the margins below, or if the question is ambiguous. For
example, "the violin" is ambiguous if there are two, and a performer may stand between two places or
be heard but not seen.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from amuse_jax.synthetic.score.score import Performer, Score

LOUDER_DB = 4.0  # minimum level difference for "louder"
RHYTHMIC_RATIO = 1.5  # minimum ratio of notes per second for "more rhythmic"
LONGER_SECONDS = 6.0  # minimum difference of sounding time for "playing longer"
ENTRY_SECONDS = 6.0  # minimum time between two successive entries
TOGETHER_SECONDS = 0.25  # maximum time between two simultaneous entries
OVERLAP_SECONDS = 4.0  # minimum overlap for "at the same time"; otherwise there must be no overlap
ALWAYS_SECONDS = 0.5  # maximum silence of a performer who is "always playing"
PAUSE_SECONDS = 6.0  # minimum silence of a performer who is not "always playing"
ABSENT = 2  # number of absent instruments that questions may name


Compare = Callable[[Performer, Performer], str | None]
Answers = Iterator[tuple[tuple[str, ...], str]]  # (values of the placeholders, answer)


def yes_or_no(true: bool) -> str:
    """Return the answer 'yes' or 'no'."""
    return 'yes' if true else 'no'


def visible(score: Score) -> list[Performer]:
    """Return the visible performers from left to right."""
    return [p for p in score.performers if p.visible]


def sounding(score: Score) -> list[Performer]:
    """Return the performers who sound at any time, visible or not."""
    return [p for p in score.performers if p.sounds]


def sound_matches_picture(score: Score) -> bool:
    """Return whether every sound comes from a visible performer and its drawn instrument."""
    return all(p.visible and p.heard_instrument == p.instrument for p in sounding(score))


def absent_instruments(score: Score) -> list[str]:
    """Draw ABSENT instruments that are neither seen nor heard, from the score's seed."""
    present = {p.instrument for p in score.performers}
    present |= {p.heard_instrument for p in score.performers}
    names = [name for name in INSTRUMENTS if name not in present]
    rng = np.random.default_rng((score.seed, 2))
    return [names[i] for i in rng.choice(len(names), size=ABSENT, replace=False)]


def visible_by_instrument(score: Score) -> dict[str, list[Performer]]:
    """Group the visible performers by their drawn instrument."""
    groups = defaultdict(list)
    for performer in visible(score):
        groups[performer.instrument].append(performer)
    return dict(groups)


def sounding_by_instrument(score: Score) -> dict[str, list[Performer]]:
    """Group the sounding performers by the instrument that is heard."""
    groups = defaultdict(list)
    for performer in sounding(score):
        groups[performer.heard_instrument].append(performer)
    return dict(groups)


def only_of_kind(groups: dict[str, list[Performer]]) -> list[Performer]:
    """Return the performers who are the only one with their instrument."""
    return [group[0] for group in groups.values() if len(group) == 1]


def performers_by_place(score: Score) -> dict[str, Performer]:
    """Return the performers on the left, on the right and in the middle.

    With an even number of performers nobody is in the middle; a single performer has no place.
    """
    row = visible(score)
    if len(row) == 1:
        return {}
    places = {'left': row[0], 'right': row[-1]}
    if len(row) % 2:
        places['middle'] = row[len(row) // 2]
    return places


def place_of(score: Score, performer: Performer) -> str | None:
    """Return the place of a performer, or None if it has no name."""
    places = performers_by_place(score).items()
    return next((place for place, other in places if other is performer), None)


def instruments_beside(score: Score, performer: Performer) -> Iterator[tuple[str, str]]:
    """Yield (left or right, instrument) for each side where everyone plays the same instrument."""
    row = visible(score)
    index = row.index(performer)
    for side, others in (('left', row[:index]), ('right', row[index + 1 :])):
        kinds = {p.instrument for p in others}
        if len(kinds) == 1:
            yield side, kinds.pop()


def entry_order(score: Score) -> list[Performer]:
    """Return the sounding performers in the order of their entries."""
    return sorted(sounding(score), key=lambda p: p.intervals[0][0])


def first_and_last(score: Score) -> dict[str, Performer]:
    """Return who enters first and who enters last, each only if ENTRY_SECONDS from the others."""
    order = entry_order(score)
    starts = [p.intervals[0][0] for p in order]
    ends = {}
    if len(order) > 1 and starts[1] - starts[0] >= ENTRY_SECONDS:
        ends['first'] = order[0]
    if len(order) > 1 and starts[-1] - starts[-2] >= ENTRY_SECONDS:
        ends['last'] = order[-1]
    return ends


def overlap_seconds(one: Performer, other: Performer) -> float:
    """Return how many seconds both sound at the same time."""
    return sum(
        max(0.0, min(a_end, b_end) - max(a_start, b_start))
        for a_start, a_end in one.intervals
        for b_start, b_end in other.intervals
    )


def louder(one: Performer, other: Performer) -> str | None:
    """Answer whether `one` is louder, or return None if the levels are too close."""
    difference = one.gain_db - other.gain_db
    return yes_or_no(difference > 0) if abs(difference) >= LOUDER_DB else None


def more_rhythmic(one: Performer, other: Performer) -> str | None:
    """Answer whether `one` plays more notes per second, or return None if it is too close."""
    fewer, more = sorted((one.notes_per_second, other.notes_per_second))
    if more < RHYTHMIC_RATIO * fewer:
        return None
    return yes_or_no(one.notes_per_second > other.notes_per_second)


def longer(one: Performer, other: Performer) -> str | None:
    """Answer whether `one` sounds longer in total, or return None if the times are too close."""
    difference = one.sounding_seconds - other.sounding_seconds
    return yes_or_no(difference > 0) if abs(difference) >= LONGER_SECONDS else None
