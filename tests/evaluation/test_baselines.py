import dataclasses

import pytest

from amuse_jax import music_avqa
from amuse_jax.evaluation import baselines, tables
from amuse_jax.music_avqa import Question
from tests.music_avqa import published


def question(template, answer, text=''):
    return Question('1', 'v', 'v', 'test', 'Audio', 'Counting', template, (), text, answer)


def test_most_frequent_answer_of_the_template_with_ties_and_unknown_templates():
    train = [question('A', 'two'), question('A', 'two'), question('A', 'one')]
    train += [question('B', 'yes'), question('B', 'no')]
    test = [question('A', 'one'), question('B', 'yes'), question('C', 'zero')]
    assert baselines.most_frequent_answers(train, test) == ['two', 'no', 'two']


def test_a_rephrased_question_has_the_template_of_the_question_that_it_rephrases():
    train = [question('A', 'two'), question('A', 'two'), question('B', 'yes')]
    test = [question('B', 'yes')]
    rephrased = [question('So B?', 'yes'), question('Is it B?', 'yes')]
    unrelated = dataclasses.replace(rephrased[0], question_id='7')
    found = baselines.with_original_templates(test, [*rephrased, unrelated])
    assert [q.template for q in found] == ['B', 'B', 'So B?']
    assert baselines.most_frequent_answers(train, found) == ['yes', 'yes', 'two']
    assert baselines.most_frequent_answers(train, rephrased) == ['two', 'two']
    assert baselines.with_original_templates(test, [unrelated]) == []


def test_answers_from_words_depend_on_the_words_alone():
    train = [
        question('A', 'yes' if name == 'violin' else 'no', f'Is there a {name} sound?')
        for name in ('violin', 'piano', 'flute', 'violin')
        for _ in range(20)
    ]
    test = [question('A', '', f'Is there a {name} sound?') for name in ('violin', 'flute')]
    assert baselines.answer_from_words(train, test) == ['yes', 'no']


# Accuracies on version 2's biased test set if the most frequent answers are those of the test set
# itself, in the order of tables.COLUMNS.
UPPER_BOUNDS = {
    'template': (66.05, 54.37, 61.69, 56.55, 27.40, 41.92, 76.03, 56.35, 32.39, 57.77, 31.67, 51.77,
                 50.89),
    'type': (49.71, 53.87, 51.26, 32.73, 19.35, 26.02, 60.38, 34.29, 15.87, 50.68, 15.90, 36.17,
             36.13),
}  # fmt: skip


@pytest.mark.parametrize('majority', UPPER_BOUNDS)
def test_upper_bounds_on_the_real_test_set(majority):
    test, complaints = music_avqa.read_questions(published.path('v2_test_bias'), 'test')
    assert not complaints
    if majority == 'type':
        test = [dataclasses.replace(q, template=f'{q.modality} {q.kind}') for q in test]
    answers = baselines.most_frequent_answers(test, test)
    row = tables.accuracies(test, [a == q.answer for a, q in zip(answers, test)])
    assert [round(value, 2) for value in row.values()] == list(UPPER_BOUNDS[majority])
