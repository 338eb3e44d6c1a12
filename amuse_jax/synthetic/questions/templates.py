"""All questions about a performance whose answers nobody who sees and hears it could dispute.

Each of the 33 templates has one function that reads the score and yields (values of the
placeholders, answer). What a template is taken to mean stands in its function's first line; the
margins are in facts.py. Where a sound belongs to another instrument, or comes from outside the
picture, templates that speak of sounds "in the video" are not asked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, permutations

from amuse_jax.music_avqa.vocabulary import COUNTS
from amuse_jax.synthetic.questions import facts
from amuse_jax.synthetic.questions import templates_audio_visual as both
from amuse_jax.synthetic.score.score import Score

Answered = Iterator[tuple[tuple[str, ...], str]]


@dataclass(frozen=True)
class Candidate:
    """A question that may be asked about a performance.

    Attributes:
      template: key of vocabulary.TEMPLATES.
      values: what fills its placeholders, in order.
      answer: one of vocabulary.ANSWERS.
    """

    template: str
    values: tuple[str, ...]
    answer: str


def candidates(score: Score) -> list[Candidate]:
    """Everything that may be asked about the performance, each question once."""
    found = []
    for template, answers in QUESTIONS.items():
        for values, answer in dict(answers(score)).items():
            found.append(Candidate(template, values, answer))
    return found


# Audio


def _are_there_sounds(score: Score) -> Answered:
    """Both instruments are heard, seen or not."""
    heard = list(facts.heard(score))
    others = [name for name in facts.seen(score) if name not in heard] + facts.absent(score)
    for one, other in combinations(heard, 2):
        yield (one, other), 'yes'
    for name, other in [(name, other) for name in heard for other in others]:
        yield (name, other), 'no'
        yield (other, name), 'no'


def _count_heard(score: Score) -> Answered:
    """Performers who sound at any time, seen or not."""
    yield (), COUNTS[len(facts.sounding(score))]


def _is_there_a_sound(score: Score) -> Answered:
    """The instrument is heard, seen or not."""
    heard = facts.heard(score)
    for name in [*heard, *facts.seen(score), *facts.absent(score)]:
        yield (name,), facts.yes(name in heard)


def _compare_heard(compare: facts.Compare) -> Callable[[Score], Answered]:
    """Two instruments that sound, each one of its kind: by level, notes or sounding time."""

    def answers(score: Score) -> Answered:
        for one, other in permutations(facts.single(facts.heard(score)), 2):
            if answer := compare(one, other):
                yield (one.heard, other.heard), answer

    return answers


# Visual


def _are_there_instruments(score: Score) -> Answered:
    """Both instruments are seen, sounding or not."""
    seen = list(facts.seen(score))
    others = [name for name in facts.heard(score) if name not in seen] + facts.absent(score)
    for one, other in combinations(seen, 2):
        yield (one, other), 'yes'
    for name, other in [(name, other) for name in seen for other in others]:
        yield (name, other), 'no'
        yield (other, name), 'no'


def _count_seen(score: Score) -> Answered:
    """Visible performers with the instrument, sounding or not."""
    seen = facts.seen(score)
    for name in [*seen, *facts.absent(score)]:
        yield (name,), COUNTS[len(seen.get(name, ()))]


def _count_types_seen(score: Score) -> Answered:
    """Different instruments that are seen, sounding or not."""
    yield (), COUNTS[len(facts.seen(score))]


def _is_there_in_video(score: Score) -> Answered:
    """The instrument is seen, sounding or not."""
    seen = facts.seen(score)
    for name in [*seen, *facts.heard(score), *facts.absent(score)]:
        yield (name,), facts.yes(name in seen)


def _beside_object(score: Score) -> Answered:
    """What all on that side of the only one of its kind play."""
    for performer in facts.single(facts.seen(score)):
        for side, instrument in facts.beside(score, performer):
            yield (side, performer.instrument), instrument


def _at_the_end(score: Score) -> Answered:
    """The instrument seen farthest to the left or right of two or more performers."""
    visible = facts.visible(score)
    if len(visible) > 1:
        yield ('leftest',), visible[0].instrument
        yield ('rightest',), visible[-1].instrument


def _only_kind(score: Score) -> Answered:
    """The one instrument that is seen and, if anything else could be meant, heard."""
    kinds = set(facts.seen(score)) | set(facts.heard(score))
    if len(kinds) == 1:
        yield (), kinds.pop()


def _setting(score: Score) -> Answered:
    """Indoor or outdoor, as painted."""
    yield (), score.setting


QUESTIONS: dict[str, Callable[[Score], Answered]] = {
    'Are there <Object> and <Object> sound? ': _are_there_sounds,
    'How many musical instruments were heard throughout the video?': _count_heard,
    'Is there a <Object> sound?': _is_there_a_sound,
    'Is the <Object> louder than the <Object>?': _compare_heard(facts.louder),
    'Is the <Object> more rhythmic than the <Object>?': _compare_heard(facts.more_rhythmic),
    'Is the <Object> playing longer than the <Object>?': _compare_heard(facts.longer),
    'Are there <Object> and <Object> instruments in the video?': _are_there_instruments,
    'How many <Object> are in the entire video?': _count_seen,
    'How many types of musical instruments appeared in the entire video?': _count_types_seen,
    'Is there a <Object> in the entire video?': _is_there_in_video,
    'What is the instrument on the <LR> of <Object>?': _beside_object,
    'What kind of instrument is the <LRer> instrument? ': _at_the_end,
    'What kind of musical instrument is it?': _only_kind,
    'Where is the performance?': _setting,
    'Is the <Object> in the video always playing?': both.always_playing,
    'Is there a voiceover?': both.voiceover,
    'Is this sound from the instrument in the video?': both.sound_of_instrument,
    'How many instruments are sounding in the video?': both.count_sounding,
    'How many instruments in the video did not sound from beginning to end?': both.count_silent,
    'How many sounding <Object> in the video\uff1f': both.count_sounding_of_kind,
    'How many types of musical instruments sound in the video?': both.count_types_sounding,
    'Is the <FL> sound coming from the <LR> instrument?': both.sound_from_place,
    'What is the <LR> instrument of the <FL> sounding instrument?': both.beside_first,
    'Where is the <LL> instrument?': both.loudest_place,
    'Which is the musical instrument that sounds at the same time as the <Object>?': both.same_time,
    'Is the <Object> on the <LR> louder than the <Object> on the <LR>?': both.compare_places(
        facts.louder, named=True
    ),
    'Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?': both.compare_places(
        facts.more_rhythmic, named=True
    ),
    'Is the instrument on the <LR> louder than the instrument on the <LR>?': both.compare_places(
        facts.louder, named=False
    ),
    'Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?': (
        both.compare_places(facts.more_rhythmic, named=False)
    ),
    'What is the <TH> instrument that comes in?': both.comes_in,
    'Where is the <FL> sounding instrument?': both.first_place,
    'Which <Object> makes the sound <FL>?': both.which_of_kind,
    'Which instrument makes sounds <BA> the <Object>?': both.before_or_after,
}
