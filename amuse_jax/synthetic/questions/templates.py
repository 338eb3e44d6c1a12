"""The 33 question templates, answered from a score wherever the answer is beyond dispute.

Each template has one function that reads the score and yields (values of the placeholders, answer).
Its docstring says how the template is interpreted; "the only <Object>" means the only performer
with that instrument. The margins are in facts.py.

Templates about sounds "in the video" are skipped if a sound comes from outside the picture or does
not belong to the drawn instrument. The audio-visual templates are in templates_audio_visual.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, permutations

from amuse_jax.music_avqa.vocabulary import COUNTS
from amuse_jax.synthetic.questions import facts, templates_audio_visual
from amuse_jax.synthetic.score.score import Score


@dataclass(frozen=True)
class Candidate:
    """A question that may be asked about a performance, with its answer.

    Attributes:
      template: a key of vocabulary.TEMPLATES.
      values: the values of the placeholders, in order.
      answer: one of vocabulary.ANSWERS.
    """

    template: str
    values: tuple[str, ...]
    answer: str


def candidates(score: Score) -> list[Candidate]:
    """Return all questions that may be asked about the performance, each of them once."""
    questions = []
    for template, answers in QUESTIONS.items():
        for values, answer in dict(answers(score)).items():
            questions.append(Candidate(template, values, answer))
    return questions


# Audio templates


def _are_there_sounds(score: Score) -> facts.Answers:
    """Answer whether both instruments are heard, visible or not."""
    heard = list(facts.sounding_by_instrument(score))
    visible = facts.visible_by_instrument(score)
    others = [name for name in visible if name not in heard] + facts.absent_instruments(score)
    for one, other in combinations(heard, 2):
        yield (one, other), 'yes'
    for name, other in [(name, other) for name in heard for other in others]:
        yield (name, other), 'no'
        yield (other, name), 'no'


def _count_heard(score: Score) -> facts.Answers:
    """Count the performers who sound at any time, visible or not."""
    yield (), COUNTS[len(facts.sounding(score))]


def _is_there_a_sound(score: Score) -> facts.Answers:
    """Answer whether the instrument is heard, visible or not."""
    heard = facts.sounding_by_instrument(score)
    for name in [*heard, *facts.visible_by_instrument(score), *facts.absent_instruments(score)]:
        yield (name,), facts.yes_or_no(name in heard)


def _compare_heard(compare: facts.Compare) -> Callable[[Score], facts.Answers]:
    """Compare two sounding performers who are both the only one with their instrument."""

    def answers(score: Score) -> facts.Answers:
        for one, other in permutations(facts.only_of_kind(facts.sounding_by_instrument(score)), 2):
            if answer := compare(one, other):
                yield (one.heard_instrument, other.heard_instrument), answer

    return answers


# Visual templates


def _are_there_instruments(score: Score) -> facts.Answers:
    """Answer whether both instruments are visible, sounding or not."""
    seen = list(facts.visible_by_instrument(score))
    others = [
        name for name in facts.sounding_by_instrument(score) if name not in seen
    ] + facts.absent_instruments(score)
    for one, other in combinations(seen, 2):
        yield (one, other), 'yes'
    for name, other in [(name, other) for name in seen for other in others]:
        yield (name, other), 'no'
        yield (other, name), 'no'


def _count_seen(score: Score) -> facts.Answers:
    """Count the visible performers with the instrument, sounding or not."""
    seen = facts.visible_by_instrument(score)
    for name in [*seen, *facts.absent_instruments(score)]:
        yield (name,), COUNTS[len(seen.get(name, ()))]


def _count_types_seen(score: Score) -> facts.Answers:
    """Count the different visible instruments, sounding or not."""
    yield (), COUNTS[len(facts.visible_by_instrument(score))]


def _is_there_in_video(score: Score) -> facts.Answers:
    """Answer whether the instrument is visible, sounding or not."""
    seen = facts.visible_by_instrument(score)
    for name in [*seen, *facts.sounding_by_instrument(score), *facts.absent_instruments(score)]:
        yield (name,), facts.yes_or_no(name in seen)


def _instrument_beside(score: Score) -> facts.Answers:
    """Name the instrument on one side of the only <Object>; everyone there must play it."""
    for performer in facts.only_of_kind(facts.visible_by_instrument(score)):
        for side, instrument in facts.instruments_beside(score, performer):
            yield (side, performer.instrument), instrument


def _outermost(score: Score) -> facts.Answers:
    """Name the leftmost or rightmost instrument of two or more performers."""
    visible = facts.visible(score)
    if len(visible) > 1:
        yield ('leftest',), visible[0].instrument
        yield ('rightest',), visible[-1].instrument


def _only_kind(score: Score) -> facts.Answers:
    """Name the instrument if only one is visible and no other one is heard."""
    kinds = set(facts.visible_by_instrument(score)) | set(facts.sounding_by_instrument(score))
    if len(kinds) == 1:
        yield (), kinds.pop()


def _setting(score: Score) -> facts.Answers:
    """Answer indoor or outdoor, as painted."""
    yield (), score.setting


QUESTIONS: dict[str, Callable[[Score], facts.Answers]] = {
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
    'What is the instrument on the <LR> of <Object>?': _instrument_beside,
    'What kind of instrument is the <LRer> instrument? ': _outermost,
    'What kind of musical instrument is it?': _only_kind,
    'Where is the performance?': _setting,
    **templates_audio_visual.QUESTIONS,
}
