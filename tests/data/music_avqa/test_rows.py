import collections
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amuse_jax import stages
from amuse_jax.data import music_avqa, vocabulary
from configs import base

REAL = Path(__file__).parents[4] / 'shared/data/music_avqa'
ROW = {
    'video_id': '00000093',
    'question_id': 7,
    'type': '["Audio-Visual", "Counting"]',
    'question_content': 'How many sounding <Object> in the video\uff1f',
    'templ_values': '["acoustic_guitar"]',
    'question_deleted': 0,
    'anser': 'more than ten',
}


def read(tmp_path, *rows, split='val'):
    path = tmp_path / f'avqa-{split}.json'
    path.write_text(json.dumps(rows))
    return music_avqa.read_questions(path, split)


def test_a_row_becomes_a_question(tmp_path):
    (question,), complaints = read(tmp_path, ROW)
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


@pytest.mark.parametrize(
    'changes, expected',
    [
        ({'templ_values': ['violin']}, {'values': ('violin',)}),
        ({'type': ['Audio', 'Counting']}, {'modality': 'Audio'}),
        ({'question_id': 47859.0}, {'question_id': '47859'}),
        ({'question_id': math.nan}, {'question_id': 'avqa-val:0'}),
        ({'unmatch_audio': '00000004', 'person': 'True'}, {'sound_id': '00000004'}),
        ({'unmatch_audio': None}, {'sound_id': '00000093'}),
        ({'video_id': '-6cjIJVzP6e_#02_flip'}, {'video_id': '-6cjIJVzP6e_#02_flip'}),
        ({'video_id': 'two words'}, {'video_id': 'two words'}),
        (
            {'question_content': 'Are there <Object> and <Object> sound? ',
             'templ_values': '["drum", "drum"]'},
            {'text': 'Are there drum and drum sound?'},
        ),
    ],
)  # fmt: skip
def test_the_ways_to_write_a_row(changes, expected, tmp_path):
    (question,), complaints = read(tmp_path, ROW | changes)
    assert not complaints
    assert {name: getattr(question, name) for name in expected} == expected


def test_keys_that_version_2_leaves_out(tmp_path):
    row = {key: ROW[key] for key in ROW if key not in ('question_id', 'question_deleted')}
    (_, question), complaints = read(tmp_path, ROW, row)
    assert not complaints and question.question_id == 'avqa-val:1'


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
        ({'question_content': ' ', 'templ_values': '[]'}, 'empty'),
        ({'question_id': [7]}, 'question_id'),
    ],
)
def test_a_malformed_row_is_named_and_left_out(changes, reason, tmp_path):
    questions, (complaint,) = read(tmp_path, ROW, ROW | changes, ROW)
    assert len(questions) == 2
    assert complaint.startswith('avqa-val.json, row 1: ') and reason in complaint


@pytest.mark.parametrize('key', ['video_id', 'type', 'question_content', 'templ_values', 'anser'])
def test_a_missing_key_is_named(key, tmp_path):
    row = {name: value for name, value in ROW.items() if name != key}
    _, (complaint,) = read(tmp_path, row)
    assert key in complaint


def test_rows_that_are_no_objects(tmp_path):
    questions, complaints = read(tmp_path, 'row', None, [], 7)
    assert not questions and len(complaints) == 4


VALUES = st.none() | st.booleans() | st.floats() | st.text(max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(ROW)), VALUES | st.lists(VALUES, max_size=3))
def test_no_row_stops_the_reading(tmp_path, key, value):
    questions, complaints = read(tmp_path, ROW | {key: value}, ROW)
    assert len(questions) + len(complaints) == 2


@pytest.mark.parametrize('text', ['', '{}', '[', '7', '\x00'])
def test_a_file_that_is_no_annotation_file(text, tmp_path):
    path = tmp_path / 'avqa-train.json'
    path.write_text(text)
    with pytest.raises(stages.StageError, match='is not an annotation file'):
        music_avqa.read_questions(path, 'train')


def test_a_missing_file(tmp_path):
    with pytest.raises(stages.StageError, match='does not exist'):
        music_avqa.read_questions(tmp_path / 'avqa-train.json', 'train')


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / 'avqa-train.json'
    path.write_text(json.dumps([ROW]), 'utf-8-sig')
    assert len(music_avqa.read_questions(path, 'train')[0]) == 1


def test_values_are_not_filled_again():
    assert music_avqa.fill('Is <LR> <LR>?', ['<LR>', 'b']) == 'Is <LR> b?'


def test_data_root(tmp_path):
    config = base.get_config()
    assert music_avqa.data_root(config, {'render': tmp_path}) == tmp_path
    with pytest.raises(stages.StageError, match='data.root'):
        music_avqa.data_root(config, {})
    config.data.root = str(tmp_path / 'nowhere')
    with pytest.raises(stages.StageError, match='does not exist'):
        music_avqa.data_root(config, {'render': tmp_path})


def test_a_path_never_leaves_the_folder(tmp_path):
    assert music_avqa.video_path(tmp_path, 'a b#c') == tmp_path / 'videos/a b#c.mp4'
    with pytest.raises(ValueError):
        music_avqa.video_path(tmp_path, '../a')


# facts: rows, distinct videos, rows with another video's sound, rows per type in TYPES' order.
COUNTS = {
    'v1_avqa-val': (4568, 3815, 0, (511, 295, 600, 613, 495, 633, 461, 549, 411)),
    'v2_test_bias': (9119, 6456, 29, (1022, 607, 1222, 1230, 901, 1292, 920, 1101, 824)),
}


@pytest.mark.parametrize('name', COUNTS)
def test_real_files(name):
    path = REAL / f'{name}.json'
    if not path.exists():
        pytest.skip(f'{path} is not here')
    questions, complaints = music_avqa.read_questions(path, 'test')
    rows, videos, swapped, types = COUNTS[name]
    assert not complaints and len(questions) == rows
    assert len({question.video_id for question in questions}) == videos
    assert sum(question.sound_id != question.video_id for question in questions) == swapped
    found = collections.Counter((question.modality, question.kind) for question in questions)
    assert tuple(found[kind] for kind in vocabulary.TYPES) == types
    for question in questions:
        type_of_template = vocabulary.TYPES[vocabulary.TEMPLATES[question.template]]
        assert type_of_template == (question.modality, question.kind)
        allowed = {value for values in vocabulary.PLACEHOLDERS.values() for value in values}
        assert set(question.values) <= allowed
        assert question.text[-1] == '?' and question.text.isascii()
