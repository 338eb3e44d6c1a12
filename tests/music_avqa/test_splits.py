import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import splits, videos, vocabulary


def voiceover(name, answer='yes', **changes):
    return {
        'video_id': name,
        'type': '["Audio-Visual", "Existential"]',
        'question_content': 'Is there a voiceover?',
        'templ_values': '[]',
        'anser': answer,
        **changes,
    }


@pytest.fixture
def read(write, tmp_path):
    """read(scheme, train, val, test) reads annotation files with these rows."""

    def read(scheme, *rows_of_splits):
        for split, rows in zip(music_avqa.SPLITS, rows_of_splits):
            write(f'avqa-{split}.json', *rows)
        return music_avqa.read(tmp_path, scheme)

    return read


def test_each_file_and_each_split(read):
    found = read('plain', [voiceover('a'), 7], [voiceover('a')], [voiceover('b'), voiceover('c')])
    assert [len(file.questions) for file in found.files] == [1, 1, 2]
    assert [len(file.malformed) for file in found.files] == [1, 0, 0]
    assert {split: len(questions) for split, questions in found.questions.items()} == {
        'train': 1, 'val': 1, 'test': 2
    }  # fmt: skip
    assert not found.remarks


def test_a_repeated_row_is_kept_once_and_named(read):
    rows = [voiceover('a', question_id=1), voiceover('b'), voiceover('a', question_id=2)]
    found = read('plain', rows, [voiceover('a')], [voiceover('a')])
    assert [q.question_id for q in found.questions['train']] == ['1', 'avqa-train:1']
    assert found.remarks == ('avqa-train.json, row 2: repeats avqa-train.json, row 0; kept once',)
    assert len(found.files[0].questions) == 3


def test_another_sound_is_another_question(read):
    rows = [voiceover('a'), voiceover('a', 'no', unmatch_audio='b')]
    found = read('plain', rows, rows, rows)
    assert all(len(questions) == 2 for questions in found.questions.values())
    assert not found.remarks


@pytest.mark.parametrize('scheme', ['plain', 'v1', 'v1-json'])
def test_of_two_answers_the_first_is_kept_and_both_are_named(scheme, read):
    rows = [voiceover('a', 'no', question_id=5), voiceover('a', 'yes', question_id=5)]
    found = read(scheme, rows, [voiceover('b')], [voiceover('b')])
    assert [q.answer for q in found.questions['train']] == ['no']
    assert found.remarks == (
        "avqa-train.json, row 1: 'yes', but 'no' in avqa-train.json, row 0; the first is kept",
    )


def doubled(question_id, answers, **changes):
    row = voiceover('v', question_id=question_id, **changes)
    return [row | {'anser': answer} for answer in answers]


def test_known_corrections_decide_between_two_answers(read):
    counting = {
        'type': '["Audio", "Counting"]',
        'question_content': 'How many musical instruments were heard throughout the video?',
    }
    naming = {
        'video_id': '00004536',
        'type': '["Visual", "Location"]',
        'question_content': 'What kind of musical instrument is it?',
    }
    where = {
        'video_id': 'esa00000423',
        'type': '["Audio-Visual", "Temporal"]',
        'question_content': 'Where is the <FL> sounding instrument?',
        'templ_values': '["first"]',
    }
    train = doubled(33910, ('two', 'three'), **counting)
    train += doubled(37407, ('one', 'zero'), **counting | {'video_id': 'w'})
    test = doubled(47300, ('left', 'right'), **where)
    test += doubled(27558, ('violin', 'acoustic_guitar'), **naming)
    found = read('v1-json', train, [voiceover('b')], test)
    assert [(q.question_id, q.answer) for q in found.questions['train']] == [
        ('33910', 'five'), ('37407', 'two')
    ]  # fmt: skip
    (question,) = found.questions['test']
    assert question.video_id == '00004536' and question.answer == 'acoustic_guitar'
    assert question.text == 'What kind of instrument is the leftest instrument?'
    assert len(found.remarks) == 4 and all('json_update' in remark for remark in found.remarks)
    # The ids have this meaning only in version 1's first release.
    assert [q.answer for q in read('plain', train, test, test).questions['train']] == ['two', 'one']


def test_corrections_are_questions_of_the_data_set():
    changes = [change for change in splits.CORRECTIONS.values() if change is not None]
    assert {change['answer'] for change in changes} <= set(vocabulary.ANSWERS)
    (rewritten,) = [change for change in changes if 'template' in change]
    assert rewritten['template'] in vocabulary.TEMPLATES
    assert music_avqa.fill(rewritten['template'], rewritten['values']) == rewritten['text']


def test_unknown_words_are_named_and_kept(read):
    row = voiceover('a', question_content='Is there a Voiceover or singing?')
    found = read('plain', [row], [voiceover('b')], [voiceover('b')])
    assert len(found.questions['train']) == 1
    assert found.remarks == (
        "avqa-train.json, row 0: 'Voiceover', 'or', 'singing' not among the 93 known words",
    )


NAMES = st.sampled_from([f'{n:08d}' for n in range(30)] + [f'abcdefghi{n:02d}' for n in range(30)])
SIBLINGS = st.sampled_from(('', '_#02', '_flip', '_#02_flip'))


@st.composite
def located_questions(draw):
    """Draw questions about many videos and mirrored copies, in any order."""
    names = draw(st.lists(st.builds(str.__add__, NAMES, SIBLINGS), max_size=40, unique=True))
    return [
        (name, music_avqa.Question(
            name, name, name, draw(st.sampled_from(music_avqa.SPLITS)), 'Audio-Visual',
            'Existential', 'Is there a voiceover?', (), 'Is there a voiceover?', 'yes'))
        for name in names
    ]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(located_questions(), st.randoms(use_true_random=False))
def test_no_performance_is_in_two_splits(located, random):
    found = splits.split_by_video(located)
    split_of = {}
    for split, pairs in found.items():
        for name, question in pairs:
            assert question.split == split
            assert split_of.setdefault(videos.performance_name(name), split) == split
    assert sum(map(len, found.values())) == len(located)
    shuffled = random.sample(located, len(located))
    again = splits.split_by_video(shuffled)
    assert {s: sorted(pairs, key=str) for s, pairs in again.items()} == {
        s: sorted(pairs, key=str) for s, pairs in found.items()
    }


@settings(max_examples=50, deadline=None)
@given(located_questions(), st.randoms(use_true_random=False))
def test_held_out_questions_do_not_depend_on_the_order(located, random):
    questions = [dataclasses.replace(question, split='train') for _, question in located]
    kept, held_out = splits.hold_out_validation(questions)
    assert {q.split for q in kept} <= {'train'} and {q.split for q in held_out} <= {'val'}
    assert {q.identity for q in kept + held_out} == {q.identity for q in questions}
    some = [question for question in questions if random.random() < 0.5]
    assert set(splits.hold_out_validation(some)[1]) == {
        q for q in held_out if q.identity in {question.identity for question in some}
    }


def test_splitting_by_video_pools_all_rows(read):
    names = [f'{number:08d}' for number in range(400)]
    rows = [[voiceover(name) for name in names[start::3]] for start in range(3)]
    rows[2].append(voiceover(names[0]))
    found = read('v1-by-video', *rows)
    sizes = {split: len(questions) for split, questions in found.questions.items()}
    assert sum(sizes.values()) == 400
    for split, share in splits.BY_VIDEO_SHARES.items():
        assert sizes[split] == pytest.approx(400 * share, abs=30)
    assert found.remarks == ('avqa-test.json, row 133: repeats avqa-train.json, row 0; kept once',)


def test_version_2_without_validation_questions(write, tmp_path):
    rows = [voiceover(f'{number:08d}') for number in range(800)]
    write('data/bias_set/train_bias.json', *rows)
    write('data/bias_set/test_bias.json', voiceover('x'))
    found = music_avqa.read(tmp_path, 'v2-bias').questions
    assert len(found['train']) + len(found['val']) == 800
    assert len(found['val']) == pytest.approx(100, abs=30)
    assert {q.split for q in found['val']} == {'val'}
    assert found['train'][0].question_id == 'train_bias:0'


def test_version_2_with_validation_questions_that_are_also_train_rows(write, tmp_path):
    rows = [voiceover(f'{number:08d}') for number in range(8)]
    write('train_balance.json', *rows)
    write('balance_valid.json', *[row | {'question_id': None} for row in rows[:2]])
    write('test_balance.json', voiceover('x'))
    found = music_avqa.read(tmp_path, 'v2-balance')
    assert [len(questions) for questions in found.questions.values()] == [6, 2, 1]
    assert found.remarks == ('2 train questions are validation questions',)


def test_rephrased_questions_form_a_split_of_their_own(write, read, tmp_path):
    text = 'Can somebody be heard who does not play?'
    head = write('R/avqa-test-head.json', voiceover('c', question_content=text))
    write('R/avqa-test-tail.json', voiceover('c'), voiceover('d', question_content=text))
    read('plain', [voiceover('a')], [voiceover('b')], [voiceover('c')])
    found = music_avqa.read(tmp_path, 'plain', 'R')
    assert list(found.questions) == [*music_avqa.SPLITS, 'rephrased']
    assert [q.frequency for q in found.questions['rephrased']] == ['head', 'tail', 'tail']
    assert [q.text for q in found.questions['rephrased']].count(text) == 2
    assert [q.frequency for q in found.questions['test']] == ['']
    assert not found.remarks  # unknown words of rephrased questions are not reported
    only_head = music_avqa.read(tmp_path, 'plain', str(head))
    assert len(only_head.questions['rephrased']) == 1


def test_a_missing_file_stops_the_reading(read):
    with pytest.raises(StageError, match='avqa-test.json does not exist'):
        read('plain', [voiceover('a')], [voiceover('b')])


def test_real_files_hold_each_question_once_and_known_words_only(real):
    words = set()
    for name in ('v1_avqa-val', 'v2_test_bias'):
        questions = real(name)
        remarks = []
        settled = splits._deduplicate([('', question) for question in questions], remarks)
        assert len(settled) == len(questions) and not remarks
        words |= {word for q in questions for word in vocabulary.split_words(q.text)}
    assert words == set(vocabulary.QUESTION_WORDS) - {vocabulary.PADDING}
