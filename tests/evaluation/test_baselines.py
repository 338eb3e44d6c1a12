from amuse_jax.data.music_avqa import Question
from amuse_jax.evaluation import baselines


def question(template, answer, text=''):
    return Question('1', 'v', 'v', 'test', 'Audio', 'Counting', template, (), text, answer)


def test_most_frequent_answer_of_the_template_ties_and_unknown_templates():
    train = [question('A', 'two'), question('A', 'two'), question('A', 'one')]
    train += [question('B', 'yes'), question('B', 'no')]
    test = [question('A', 'one'), question('B', 'yes'), question('C', 'zero')]
    assert baselines.most_frequent_answers(train, test) == ['two', 'no', 'two']


def test_question_words_learns_what_the_words_tell_and_no_more():
    train = [
        question('A', 'yes' if name == 'violin' else 'no', f'Is there a {name} sound?')
        for name in ('violin', 'piano', 'flute', 'violin')
        for _ in range(20)
    ]
    test = [question('A', '', f'Is there a {name} sound?') for name in ('violin', 'flute')]
    assert baselines.question_words(train, test) == ['yes', 'no']
