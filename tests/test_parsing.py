import pytest

from amuse_jax import parsing


def test_steps_are_a_first_one_and_an_end():
    assert list(parsing.parse_steps('10:13')) == [10, 11, 12]
    assert not parsing.parse_steps('')


@pytest.mark.parametrize('text', ['10', '13:10', '0:2', '-1:2', '3:3', 'a:b', '1:2:3'])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match='expected .* or FIRST:END'):
        parsing.parse_steps(text)


def test_trainable_is_searched_for_in_names_and_all_is_every_name():
    names = ('encoder.visual.kernel', 'answer.timeline.all.kernel', 'rhythm_predictor.first.bias')

    def chosen(text):
        return [name for name in names if parsing.parse_trainable(text).search(name)]

    assert chosen('all') == list(names)
    assert chosen('predictor') == list(names[2:])
    assert chosen('visual|answer') == list(names[:2])
    assert chosen(r'timeline\.all') == [names[1]]


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(ValueError, match="expected a pattern of parameter names, .* or 'all'"):
        parsing.parse_trainable('answer|(')
