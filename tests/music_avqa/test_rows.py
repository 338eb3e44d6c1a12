import collections
import dataclasses
import json
import math
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import rows, vocabulary

FAST = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def read(write):
    """read(*rows) returns the questions and the complaints of a file with these rows."""

    def read(*rows, split='val', name='avqa-val.json'):
        return music_avqa.read_questions(write(name, *rows), split)

    return read


def test_a_row_becomes_a_question(read, make_row):
    (question,), complaints = read(make_row())
    assert not complaints
    assert question == music_avqa.Question(
        question_id='7',
        video_id='00000093',
        sound_id='00000093',
        split='val',
        modality='Audio-Visual',
        kind='Counting',
        template='How many sounding <Object> in the video\uff1f',
        values=('acoustic_guitar',),
        text='How many sounding acoustic_guitar in the video?',
        answer='more than ten',
    )
    assert question.identity == ('00000093', '00000093', question.text)


@pytest.mark.parametrize(
    'changes, expected',
    [
        ({'templ_values': ['violin']}, {'values': ('violin',)}),
        ({'type': ['Audio', 'Counting']}, {'modality': 'Audio'}),
        ({'question_id': 47859.0}, {'question_id': '47859'}),
        ({'question_id': math.nan}, {'question_id': 'avqa-val:0'}),
        ({'question_id': None}, {'question_id': 'avqa-val:0'}),
        ({'unmatch_audio': '00000004', 'person': 'True'}, {'sound_id': '00000004'}),
        ({'unmatch_audio': None}, {'sound_id': '00000093'}),
        ({'unmatch_audio': math.nan}, {'sound_id': '00000093'}),
        ({'video_id': '-6cjIJVzP6e_#02_flip'}, {'video_id': '-6cjIJVzP6e_#02_flip'}),
        ({'video_id': 'esa00000423'}, {'video_id': 'esa00000423'}),
        ({'video_id': 'two words'}, {'video_id': 'two words'}),
        ({'split': 'test', 'x': 0.5}, {'split': 'val', 'frequency': ''}),
        (
            {'question_content': 'Are there <Object> and <Object> sound? ',
             'templ_values': '["drum", "drum"]'},
            {'text': 'Are there drum and drum sound?'},
        ),
    ],
)  # fmt: skip
def test_the_ways_to_write_a_row(changes, expected, read, make_row):
    (question,), complaints = read(make_row(**changes))
    assert not complaints
    assert {name: getattr(question, name) for name in expected} == expected


KEY_SETS = """\
video_id question_id type question_content templ_values question_deleted anser
video_id type question_content templ_values question_deleted anser
video_id unmatch_audio audio_instrument video_instrument question_content anser templ_values type
video_id type question_content templ_values anser
video_id question_content templ_values anser type
video_id question_content templ_values anser person type"""


@pytest.mark.parametrize('keys', [line.split() for line in KEY_SETS.splitlines()])
def test_the_six_sets_of_keys_of_version_2(keys, read, make_row):
    more = {
        'unmatch_audio': '00000004', 'audio_instrument': 'erhu', 'video_instrument': 'pipa',
        'person': 'True',
    }  # fmt: skip
    row = make_row(**more)
    (_, question), complaints = read(make_row(), {key: row[key] for key in keys})
    assert not complaints
    assert question.question_id == ('7' if 'question_id' in keys else 'avqa-val:1')
    assert question.sound_id == ('00000004' if 'unmatch_audio' in keys else '00000093')


def test_a_swapped_sound_makes_another_question(read, make_row):
    (plain, swapped), _ = read(make_row(), make_row(unmatch_audio='00000004'))
    assert plain.text == swapped.text and plain.identity != swapped.identity


@pytest.mark.parametrize(
    'changes, reason',
    [
        ({'video_id': '../../etc/passwd'}, 'not the plain name'),
        ({'video_id': '/etc/passwd'}, 'not the plain name'),
        ({'video_id': '..'}, 'not the plain name'),
        ({'video_id': 'a\x00b'}, 'not the plain name'),
        ({'video_id': 'a\\b'}, 'not the plain name'),
        ({'video_id': 'a' * 300}, 'not the plain name'),
        ({'video_id': '\ud800'}, 'cannot be a file name'),
        ({'video_id': 93}, 'expected the name of a video'),
        ({'video_id': ''}, 'expected the name of a video'),
        ({'unmatch_audio': '../x'}, 'unmatch_audio'),
        ({'anser': 'eleven'}, "'eleven' is not one of the 42"),
        ({'anser': None}, 'anser is None'),
        ({'type': '["Audio", "Location"]'}, 'not one of the nine'),
        ({'type': 'Audio'}, 'type'),
        ({'templ_values': '[]'}, '1 placeholders'),
        ({'templ_values': '["a", "b"]'}, '2 values'),
        ({'templ_values': '[1]'}, 'list of texts'),
        ({'templ_values': '["violin"'}, 'expected a list'),
        ({'templ_values': ['\udfff']}, 'which is not valid text'),
        ({'question_content': ' ', 'templ_values': '[]'}, 'empty'),
        ({'question_content': 'Is it\ud83c?', 'templ_values': '[]'}, 'which is not valid text'),
        ({'question_id': [7]}, 'question_id'),
    ],
)
def test_a_malformed_row_is_named_and_left_out(changes, reason, read, make_row):
    questions, (complaint,) = read(make_row(), make_row(**changes), make_row())
    assert len(questions) == 2
    assert complaint.startswith('avqa-val.json, row 1: ') and reason in complaint


@pytest.mark.parametrize('key', ['video_id', 'type', 'question_content', 'templ_values', 'anser'])
def test_a_missing_key_is_named(key, read, make_row):
    row = {name: value for name, value in make_row().items() if name != key}
    _, (complaint,) = read(row)
    assert key in complaint


def test_rows_that_are_not_objects(read):
    questions, complaints = read('row', None, [], 7)
    assert not questions and len(complaints) == 4


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@FAST
@given(
    st.sampled_from(
        ('video_id', 'question_id', 'type', 'question_content', 'templ_values', 'anser', 'split',
         'unmatch_audio')
    ),
    VALUES | st.lists(VALUES, max_size=3) | st.just('\ud800'),
    st.sampled_from(('val', 'rephrased')),
)  # fmt: skip
def test_no_row_stops_the_reading(read, make_row, key, value, split):
    questions, complaints = read(make_row(**{key: value}), make_row(), split=split)
    assert len(questions) + len(complaints) == 2
    for question in questions:
        '\n'.join([*question.identity, question.question_id, *question.values]).encode()


VIDEO_IDS = r'(esa|vv)?[0-9]{8}|[A-Za-z0-9_-]{11}(_#0[2-5])?(_flip)?'


@st.composite
def published_rows(draw):
    """Draw a row of any template, and the question that it holds."""
    template = draw(st.sampled_from(sorted(vocabulary.TEMPLATES)))
    places = re.findall('<[^<>]+>', template)
    values = [draw(st.sampled_from(vocabulary.PLACEHOLDERS[place])) for place in places]
    kind = vocabulary.TYPES[vocabulary.TEMPLATES[template]]
    answer = draw(st.sampled_from(vocabulary.ANSWERS))
    number = draw(st.integers(0, 50000))
    spell = draw(st.sampled_from((json.dumps, list)))
    row = {
        'video_id': draw(st.from_regex(VIDEO_IDS, fullmatch=True)),
        'question_id': draw(st.sampled_from((number, float(number)))),
        'type': json.dumps(kind),
        'question_content': template,
        'templ_values': spell(values),
        'anser': answer,
    }
    return row, (str(number), kind, template, tuple(values), answer)


@FAST
@given(published_rows())
def test_every_spelling_gives_the_same_question(read, pair):
    row, (number, kind, template, values, answer) = pair
    (question,), complaints = read(row)
    assert not complaints
    assert (question.question_id, question.video_id) == (number, row['video_id'])
    assert (question.modality, question.kind) == kind
    assert (question.template, question.values, question.answer) == (template, values, answer)
    assert set(vocabulary.split_words(question.text)) <= set(vocabulary.QUESTION_WORDS)


@pytest.mark.parametrize('text', ['', '{}', '[', '7', '\x00'])
def test_a_file_that_is_not_an_annotation_file(text, tmp_path):
    path = tmp_path / 'avqa-train.json'
    path.write_text(text)
    with pytest.raises(StageError, match='is not an annotation file'):
        music_avqa.read_questions(path, 'train')


def test_a_missing_file(tmp_path):
    with pytest.raises(StageError, match='does not exist'):
        music_avqa.read_questions(tmp_path / 'avqa-train.json', 'train')


def test_a_byte_order_mark_is_skipped(tmp_path, make_row):
    path = tmp_path / 'avqa-train.json'
    path.write_text(json.dumps([make_row()]), 'utf-8-sig')
    assert len(music_avqa.read_questions(path, 'train')[0]) == 1


def test_values_are_not_filled_again():
    assert music_avqa.fill('Is <LR> <LR>?', ['<LR>', 'b']) == 'Is <LR> b?'


# Rows as FortisAVQA's README prints them, with their comments.
FORTIS = (
    {
        'video_id': '00000823',
        'question_id': 2945,
        '_comment_question_id': 'the id of questions',
        'type': '["Audio", "Comparative"]',
        'question_content': 'Is the clarinet louder than the acoustic_guitar',
        'anser': 'yes',
        'split': 'tail',
        'x': 0.7958979489744872,
    },
    {
        'video_id': '00000823',
        'question_id': 2945,
        'type': '["Audio", "Comparative"]',
        'question_content': 'When compared to the acoustic_guitar does the clarinet sound louder?',
        'anser': 'yes',
        'split': 'head',
        'x': 0.7958979489744872,
    },
)


def test_rephrased_questions_that_are_filled_already(read):
    questions, complaints = read(*FORTIS, split='rephrased', name='FortisAVQA-test.json')
    assert not complaints
    assert [q.frequency for q in questions] == ['tail', 'head']
    assert {q.question_id for q in questions} == {'2945'} and len(
        {q.identity for q in questions}
    ) == 2
    for question, row in zip(questions, FORTIS):
        assert question.text == question.template == row['question_content']
        assert question.split == 'rephrased' and question.values == ()


@pytest.mark.parametrize(
    'content, values, text',
    [
        ('Does the <Object> play all the time?', '["cello"]', 'Does the cello play all the time?'),
        ("Is the <Object>'s sound the <FL>?", '["erhu", "last"]', "Is the erhu's sound the last?"),
        ('Does it play all the time?', '["cello"]', 'Does it play all the time?'),
        ('Can a voiceover be heard?', None, 'Can a voiceover be heard?'),
    ],
)
def test_rephrased_questions_with_placeholders(content, values, text, read, make_row):
    row = make_row(question_content=content, templ_values=values)
    (question,), _ = read(row, split='rephrased', name='avqa-test-headtail.json')
    assert question.text == text == music_avqa.fill(content, question.values)
    assert question.frequency == ''


@pytest.mark.parametrize('frequency', ['head', 'tail'])
def test_the_files_name_says_how_frequent_the_answers_are(frequency, read, make_row):
    name = f'avqa-test-{frequency}.json'
    (question,), _ = read(make_row(), split='rephrased', name=name)
    assert question.frequency == frequency
    (question,), _ = read(make_row(), split='test', name=name)
    assert question.frequency == ''


def test_rephrased_rows_that_cannot_be_read(read, make_row):
    rows = make_row(templ_values='[]'), make_row(split='middle'), make_row(templ_values='violin')
    _, complaints = read(*rows, split='rephrased')
    assert len(complaints) == 3
    for complaint, reason in zip(complaints, ('0 values', 'head or tail', 'expected a list')):
        assert reason in complaint


# Rows, different videos, rows with another video's sound, rows per type in the order of TYPES, and
# rows per set of keys.
COUNTS = {
    'v1_avqa-val': (4568, 3815, 0, (511, 295, 600, 613, 495, 633, 461, 549, 411), [4568]),
    'v2_test_bias': (
        9119, 6456, 29, (1022, 607, 1222, 1230, 901, 1292, 920, 1101, 824),
        [8519, 469, 72, 29, 28, 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', COUNTS)
def test_real_files(name, real, real_path):
    questions = real(name)
    rows, videos, swapped, types, key_sets = COUNTS[name]
    assert len(questions) == rows == len({question.identity for question in questions})
    assert len({question.video_id for question in questions}) == videos
    assert sum(question.sound_id != question.video_id for question in questions) == swapped
    found = collections.Counter((question.modality, question.kind) for question in questions)
    assert tuple(found[kind] for kind in vocabulary.TYPES) == types
    written = collections.Counter(tuple(row) for row in json.loads(real_path(name).read_text()))
    assert sorted(written.values(), reverse=True) == key_sets
    allowed = {value for values in vocabulary.PLACEHOLDERS.values() for value in values}
    for question in questions:
        type_of_template = vocabulary.TYPES[vocabulary.TEMPLATES[question.template]]
        assert type_of_template == (question.modality, question.kind)
        assert set(question.values) <= allowed
        assert question.text[-1] == '?' and question.text.isascii()
        if question.sound_id != question.video_id:
            assert question.text == 'Is this sound from the instrument in the video?'
            assert question.answer == 'no'


def test_a_question_is_converted_to_json_and_back(read, make_row):
    (question,), _ = read(make_row(split='tail'), split='rephrased')
    row = json.loads(json.dumps(question.to_json() | {'record': 3}))
    assert row['values'] == ['acoustic_guitar'] and row['frequency'] == 'tail'
    assert music_avqa.Question.from_json(row) == question
    assert dataclasses.asdict(question).keys() | {'record'} == row.keys()


@pytest.mark.parametrize('value', [1, 1.0, True, '1', 2])
def test_a_deleted_row_is_left_out_and_named(value, make_row, write):
    kept = [make_row(), make_row(question_deleted=0.0), make_row(question_deleted=None)]
    path = write('avqa-val.json', *kept, make_row(question_deleted=value))
    found = rows.read_rows(path, 'val')
    assert [number for number, _ in found.questions] == [0, 1, 2] and not found.malformed
    assert found.deleted == ['avqa-val.json, row 3: left out, because its question_deleted is set']


def test_a_file_that_is_too_large_or_no_file_is_one_sentence(
    write, monkeypatch, make_row, tmp_path
):
    path = write('avqa-val.json', make_row())
    monkeypatch.setattr(rows, 'MAX_FILE_BYTES', path.stat().st_size - 1)
    with pytest.raises(StageError, match='is not an annotation file: it has more than .* bytes'):
        rows.read_questions(path, 'val')
    os.mkfifo(tmp_path / 'pipe.json')
    with pytest.raises(StageError, match='it is a folder, a pipe or a device'):
        rows.read_questions(tmp_path / 'pipe.json', 'val')
