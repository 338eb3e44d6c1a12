"""The audio-visual templates: existential, counting, location, comparative, temporal."""

from collections.abc import Callable, Iterator
from itertools import permutations

from amuse_jax.music_avqa.vocabulary import COUNTS
from amuse_jax.synthetic.questions import facts
from amuse_jax.synthetic.score.score import Score

Answered = Iterator[tuple[tuple[str, ...], str]]


def always_playing(score: Score) -> Answered:
    """The only visible one of its kind sounds from the first second to the last without a pause."""
    if not facts.genuine(score):
        return
    for performer in facts.single(facts.seen(score)):
        edges = [0.0, *(second for interval in performer.intervals for second in interval)]
        edges.append(score.seconds)
        silences = [start - end for end, start in zip(edges[0::2], edges[1::2])]
        if max(silences) <= facts.ALWAYS_SECONDS:
            yield (performer.instrument,), 'yes'
        elif max(silences) >= facts.PAUSE_SECONDS:
            yield (performer.instrument,), 'no'


def voiceover(score: Score) -> Answered:
    """Somebody speaks at any time."""
    yield (), facts.yes(score.voiceover is not None)


def sound_of_instrument(score: Score) -> Answered:
    """Of one visible instrument and one that is heard: they are the same."""
    seen, heard = list(facts.seen(score)), list(facts.heard(score))
    if len(seen) == len(heard) == 1:
        yield (), facts.yes(seen == heard)


def count_sounding(score: Score) -> Answered:
    """Visible performers who sound at any time."""
    if facts.genuine(score):
        yield (), COUNTS[len(facts.sounding(score))]


def count_silent(score: Score) -> Answered:
    """Visible performers who are silent throughout."""
    if all(p.heard == p.instrument for p in score.performers):
        yield (), COUNTS[sum(not p.sounds for p in facts.visible(score))]


def count_sounding_of_kind(score: Score) -> Answered:
    """Visible performers with the instrument who sound at any time."""
    if facts.genuine(score):
        heard = facts.heard(score)
        for name in [*facts.seen(score), *facts.absent(score)]:
            yield (name,), COUNTS[len(heard.get(name, ()))]


def count_types_sounding(score: Score) -> Answered:
    """Different visible instruments that sound at any time."""
    if facts.genuine(score):
        yield (), COUNTS[len(facts.heard(score))]


def sound_from_place(score: Score) -> Answered:
    """Who comes in first or last stands at that place."""
    if facts.genuine(score):
        for order, performer in facts.first_and_last(score).items():
            if facts.place(score, performer):
                for place, other in facts.at(score).items():
                    yield (order, place), facts.yes(other is performer)


def beside_first(score: Score) -> Answered:
    """What all on that side of who comes in first or last play."""
    if facts.genuine(score):
        for order, performer in facts.first_and_last(score).items():
            for side, instrument in facts.beside(score, performer):
                yield (side, order), instrument


def loudest_place(score: Score) -> Answered:
    """Where the loudest stands, or the softest ("lowest"); all sounding instruments differ.

    The softest is asked for only where nobody is silent.
    """
    sounding = sorted(facts.sounding(score), key=lambda p: p.gain_db)
    if not facts.genuine(score) or len(sounding) < 2 or len(facts.heard(score)) < len(sounding):
        return
    ends = [('loudest', sounding[-1], sounding[-2])]
    if len(sounding) == len(score.performers):
        ends.append(('lowest', sounding[0], sounding[1]))
    for value, performer, following in ends:
        place = facts.place(score, performer)
        if place and abs(performer.gain_db - following.gain_db) >= facts.LOUDER_DB:
            yield (value,), place


def same_time(score: Score) -> Answered:
    """The one other instrument that sounds while the only one of its kind does."""
    if not facts.genuine(score):
        return
    heard = facts.heard(score)
    for performer in facts.single(heard):
        overlaps = {
            name: sum(facts.overlap(performer, other) for other in group)
            for name, group in heard.items()
            if name != performer.heard
        }
        names = [name for name, seconds in overlaps.items() if seconds > 0]
        if len(names) == 1 and overlaps[names[0]] >= facts.OVERLAP_SECONDS:
            yield (performer.instrument,), names[0]


def compare_places(compare: facts.Compare, named: bool) -> Callable[[Score], Answered]:
    """The two sounding performers at these places, by level or notes per second.

    Levels are not compared within a kind, where no listener can tell who is who.
    """

    def answers(score: Score) -> Answered:
        if not facts.genuine(score):
            return
        for (place, one), (elsewhere, other) in permutations(facts.at(score).items(), 2):
            alike = one.instrument == other.instrument and compare is facts.louder
            if alike or not (one.sounds and other.sounds):
                continue
            if answer := compare(one, other):
                names = (one.instrument, place, other.instrument, elsewhere)
                yield (names if named else (place, elsewhere)), answer

    return answers


def comes_in(score: Score) -> Answered:
    """The instrument of who comes in at this rank; everyone up to the next comes in alone."""
    order = facts.entries(score)
    starts = [p.intervals[0][0] for p in order]
    if not facts.genuine(score) or len(order) < 2:
        return
    for rank, name in enumerate(('first', 'second', 'third', 'fourth', 'fifth')[: len(order)]):
        if rank + 1 < len(order) and starts[rank + 1] - starts[rank] < facts.ENTRY_SECONDS:
            return
        yield (name,), order[rank].instrument


def first_place(score: Score) -> Answered:
    """Where stands who comes in first or last."""
    if facts.genuine(score):
        for order, performer in facts.first_and_last(score).items():
            if place := facts.place(score, performer):
                yield (order,), place


def which_of_kind(score: Score) -> Answered:
    """Of several of a kind, the place of who comes in first or last, or that all come in together.

    A place is named only where it is the same among them and among all performers.
    """
    if not facts.genuine(score):
        return
    for name, group in facts.seen(score).items():
        if len(group) < 2 or not all(p.sounds for p in group):
            continue
        order = sorted(group, key=lambda p: p.intervals[0][0])
        starts = [p.intervals[0][0] for p in order]
        if starts[-1] - starts[0] <= facts.TOGETHER_SECONDS:
            yield (name, 'first'), 'simultaneously'
            yield (name, 'last'), 'simultaneously'
            continue
        among = {'left': group[0], 'right': group[-1]}
        if len(group) % 2:
            among['middle'] = group[len(group) // 2]
        for value, index, gap in (
            ('first', 0, starts[1] - starts[0]),
            ('last', -1, starts[-1] - starts[-2]),
        ):
            place = facts.place(score, order[index])
            if place and gap >= facts.ENTRY_SECONDS and among.get(place) is order[index]:
                yield (name, value), place


def before_or_after(score: Score) -> Answered:
    """The one instrument that comes in before, or after, the only one of its kind."""
    if not facts.genuine(score):
        return
    for performer in facts.single(facts.heard(score)):
        gaps = [
            (p.intervals[0][0] - performer.intervals[0][0], p.instrument)
            for p in facts.sounding(score)
        ]
        gaps = [(gap, name) for gap, name in gaps if name != performer.instrument]
        if any(abs(gap) < facts.ENTRY_SECONDS for gap, _ in gaps):
            continue
        for value, names in (
            ('before', {name for gap, name in gaps if gap < 0}),
            ('after', {name for gap, name in gaps if gap > 0}),
        ):
            if len(names) == 1:
                yield (value, performer.instrument), names.pop()
