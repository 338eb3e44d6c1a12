from collections import Counter

import pytest

from amuse_jax.evaluation import examples
from amuse_jax.music_avqa import Question, vocabulary


def answered(kind, video, is_correct):
    question = Question('1', video, video, 'test', *kind, 'A', (), 'A', 'yes')
    return examples.Answered(question, {'predicted': 'yes' if is_correct else 'no'}, None, {})


def each(videos):
    """A correct and a wrong answer of every type about every video."""
    return [
        answered(kind, video, is_correct)
        for video in videos
        for kind in vocabulary.TYPES
        for is_correct in (False, True)
    ]


def test_one_of_each_type_and_result_in_the_order_of_the_types():
    chosen = examples.choose(each([f'{index}' for index in range(40)]), 18)
    assert [(e.kind, e.is_correct) for e in chosen] == [
        (kind, result) for kind in vocabulary.TYPES for result in (True, False)
    ]
    assert len({e.question.video_id for e in chosen}) == 18  # each about another video


@pytest.mark.parametrize('videos', [1, 3, 5])
def test_few_videos_are_used_equally_often(videos):
    chosen = examples.choose(each(map(str, range(videos))), 18)
    uses = Counter(e.question.video_id for e in chosen)
    assert len(chosen) == 18 and max(uses.values()) - min(uses.values()) <= 1


def test_types_without_a_wrong_answer_leave_their_turns_to_others():
    some = [answered(vocabulary.TYPES[0], f'{index}', True) for index in range(9)]
    some.append(answered(vocabulary.TYPES[8], 'x', False))
    chosen = examples.choose(some, 6)
    assert [e.is_correct for e in chosen] == [True] * 5 + [False]


def test_no_more_examples_than_questions_and_none_if_none_is_asked_for():
    some = [answered(vocabulary.TYPES[0], 'a', True), answered(vocabulary.TYPES[0], 'a', False)]
    assert len(examples.choose(some, 18)) == 2
    assert examples.choose(some, 0) == []
