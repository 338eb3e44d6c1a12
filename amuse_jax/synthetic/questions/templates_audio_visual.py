"""The audio-visual question templates: existential, counting, location, comparative, temporal.

Every function yields (values of the placeholders, answer), as described in templates.py.
"""

from collections.abc import Callable
from itertools import permutations

from amuse_jax.music_avqa.vocabulary import COUNTS
from amuse_jax.synthetic.questions import facts
from amuse_jax.synthetic.score.score import Score


def _always_playing(score: Score) -> facts.Answers:
    """Answer whether the only <Object> sounds from the first second to the last without a pause."""
    if not facts.sound_matches_picture(score):
        return
    for performer in facts.only_of_kind(facts.visible_by_instrument(score)):
        edges = [0.0, *(second for interval in performer.intervals for second in interval)]
        edges.append(score.seconds)
        silences = [start - end for end, start in zip(edges[0::2], edges[1::2])]
        if max(silences) <= facts.ALWAYS_SECONDS:
            yield (performer.instrument,), 'yes'
        elif max(silences) >= facts.PAUSE_SECONDS:
            yield (performer.instrument,), 'no'


def _voiceover(score: Score) -> facts.Answers:
    """Answer whether somebody speaks at any time."""
    yield (), facts.yes_or_no(score.voiceover is not None)


def _sound_of_instrument(score: Score) -> facts.Answers:
    """Answer whether the only visible instrument and the only one that is heard are the same."""
    seen = list(facts.visible_by_instrument(score))
    heard = list(facts.sounding_by_instrument(score))
    if len(seen) == len(heard) == 1:
        yield (), facts.yes_or_no(seen == heard)


def _count_sounding(score: Score) -> facts.Answers:
    """Count the visible performers who sound at any time."""
    if facts.sound_matches_picture(score):
        yield (), COUNTS[len(facts.sounding(score))]


def _count_silent(score: Score) -> facts.Answers:
    """Count the visible performers who are silent throughout."""
    if all(p.heard_instrument == p.instrument for p in score.performers):
        yield (), COUNTS[sum(not p.sounds for p in facts.visible(score))]


def _count_sounding_of_kind(score: Score) -> facts.Answers:
    """Count the visible performers with the instrument who sound at any time."""
    if facts.sound_matches_picture(score):
        heard = facts.sounding_by_instrument(score)
        for name in [*facts.visible_by_instrument(score), *facts.absent_instruments(score)]:
            yield (name,), COUNTS[len(heard.get(name, ()))]


def _count_types_sounding(score: Score) -> facts.Answers:
    """Count the different visible instruments that sound at any time."""
    if facts.sound_matches_picture(score):
        yield (), COUNTS[len(facts.sounding_by_instrument(score))]


def _sound_from_place(score: Score) -> facts.Answers:
    """Answer whether the performer who enters first or last stands at that place."""
    if facts.sound_matches_picture(score):
        for order, performer in facts.first_and_last(score).items():
            if facts.place_of(score, performer):
                for place, other in facts.performers_by_place(score).items():
                    yield (order, place), facts.yes_or_no(other is performer)


def _beside_first_or_last(score: Score) -> facts.Answers:
    """Name the instrument on one side of the performer who enters first or last.

    All performers on that side must play the same instrument.
    """
    if facts.sound_matches_picture(score):
        for order, performer in facts.first_and_last(score).items():
            for side, instrument in facts.instruments_beside(score, performer):
                yield (side, order), instrument


def _loudest_or_softest_place(score: Score) -> facts.Answers:
    """Answer where the loudest or the softest ("lowest") performer stands.

    All sounding instruments must differ. The softest is asked for only if nobody is silent.
    """
    sounding = sorted(facts.sounding(score), key=lambda p: p.gain_db)
    if (
        not facts.sound_matches_picture(score)
        or len(sounding) < 2
        or len(facts.sounding_by_instrument(score)) < len(sounding)
    ):
        return
    ends = [('loudest', sounding[-1], sounding[-2])]
    if len(sounding) == len(score.performers):
        ends.append(('lowest', sounding[0], sounding[1]))
    for value, performer, following in ends:
        place = facts.place_of(score, performer)
        if place and abs(performer.gain_db - following.gain_db) >= facts.LOUDER_DB:
            yield (value,), place


def _same_time(score: Score) -> facts.Answers:
    """Name the one other instrument that sounds at the same time as the only <Object>."""
    if not facts.sound_matches_picture(score):
        return
    heard = facts.sounding_by_instrument(score)
    for performer in facts.only_of_kind(heard):
        overlaps = {
            name: sum(facts.overlap_seconds(performer, other) for other in group)
            for name, group in heard.items()
            if name != performer.heard_instrument
        }
        names = [name for name, seconds in overlaps.items() if seconds > 0]
        if len(names) == 1 and overlaps[names[0]] >= facts.OVERLAP_SECONDS:
            yield (performer.instrument,), names[0]


def _compare_places(compare: facts.Compare, named: bool) -> Callable[[Score], facts.Answers]:
    """Compare the sounding performers at two places by level or by notes per second.

    Levels of two performers with the same instrument are not compared, because a listener cannot
    tell them apart.
    """

    def answers(score: Score) -> facts.Answers:
        if not facts.sound_matches_picture(score):
            return
        performers = facts.performers_by_place(score).items()
        for (place, one), (elsewhere, other) in permutations(performers, 2):
            ambiguous = one.instrument == other.instrument and compare is facts.louder
            if ambiguous or not (one.sounds and other.sounds):
                continue
            if answer := compare(one, other):
                names = (one.instrument, place, other.instrument, elsewhere)
                yield (names if named else (place, elsewhere)), answer

    return answers


def _entry_at_rank(score: Score) -> facts.Answers:
    """Name the instrument of the performer who enters at this rank.

    Every entry up to the next one must be ENTRY_SECONDS after the previous one.
    """
    order = facts.entry_order(score)
    starts = [p.intervals[0][0] for p in order]
    if not facts.sound_matches_picture(score) or len(order) < 2:
        return
    for rank, name in enumerate(('first', 'second', 'third', 'fourth', 'fifth')[: len(order)]):
        if rank + 1 < len(order) and starts[rank + 1] - starts[rank] < facts.ENTRY_SECONDS:
            return
        yield (name,), order[rank].instrument


def _first_or_last_place(score: Score) -> facts.Answers:
    """Answer where the performer who enters first or last stands."""
    if facts.sound_matches_picture(score):
        for order, performer in facts.first_and_last(score).items():
            if place := facts.place_of(score, performer):
                yield (order,), place


def _which_of_kind(score: Score) -> facts.Answers:
    """Answer where the first or last of several performers with the same instrument stands.

    The answer is 'simultaneously' if all of them enter together. A place is given only if it is the
    same among these performers and among all performers.
    """
    if not facts.sound_matches_picture(score):
        return
    for name, group in facts.visible_by_instrument(score).items():
        if len(group) < 2 or not all(p.sounds for p in group):
            continue
        order = sorted(group, key=lambda p: p.intervals[0][0])
        starts = [p.intervals[0][0] for p in order]
        if starts[-1] - starts[0] <= facts.TOGETHER_SECONDS:
            yield (name, 'first'), 'simultaneously'
            yield (name, 'last'), 'simultaneously'
            continue
        group_places = {'left': group[0], 'right': group[-1]}
        if len(group) % 2:
            group_places['middle'] = group[len(group) // 2]
        for value, index, gap in (
            ('first', 0, starts[1] - starts[0]),
            ('last', -1, starts[-1] - starts[-2]),
        ):
            place = facts.place_of(score, order[index])
            if place and gap >= facts.ENTRY_SECONDS and group_places.get(place) is order[index]:
                yield (name, value), place


def _before_or_after(score: Score) -> facts.Answers:
    """Name the one instrument that enters before, or after, the only <Object>."""
    if not facts.sound_matches_picture(score):
        return
    for performer in facts.only_of_kind(facts.sounding_by_instrument(score)):
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


QUESTIONS: dict[str, Callable[[Score], facts.Answers]] = {
    'Is the <Object> in the video always playing?': _always_playing,
    'Is there a voiceover?': _voiceover,
    'Is this sound from the instrument in the video?': _sound_of_instrument,
    'How many instruments are sounding in the video?': _count_sounding,
    'How many instruments in the video did not sound from beginning to end?': _count_silent,
    'How many sounding <Object> in the video\uff1f': _count_sounding_of_kind,
    'How many types of musical instruments sound in the video?': _count_types_sounding,
    'Is the <FL> sound coming from the <LR> instrument?': _sound_from_place,
    'What is the <LR> instrument of the <FL> sounding instrument?': _beside_first_or_last,
    'Where is the <LL> instrument?': _loudest_or_softest_place,
    'Which is the musical instrument that sounds at the same time as the <Object>?': _same_time,
    'Is the <Object> on the <LR> louder than the <Object> on the <LR>?': _compare_places(
        facts.louder, named=True
    ),
    'Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?': _compare_places(
        facts.more_rhythmic, named=True
    ),
    'Is the instrument on the <LR> louder than the instrument on the <LR>?': _compare_places(
        facts.louder, named=False
    ),
    'Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?': (
        _compare_places(facts.more_rhythmic, named=False)
    ),
    'What is the <TH> instrument that comes in?': _entry_at_rank,
    'Where is the <FL> sounding instrument?': _first_or_last_place,
    'Which <Object> makes the sound <FL>?': _which_of_kind,
    'Which instrument makes sounds <BA> the <Object>?': _before_or_after,
}
