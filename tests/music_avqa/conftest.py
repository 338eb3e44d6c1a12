import json

import pytest

from amuse_jax import music_avqa
from tests.media import writing
from tests.music_avqa import published

media = writing.media  # the fixture
ROW = {
    'video_id': '00000093',
    'question_id': 7,
    'type': '["Audio-Visual", "Counting"]',
    'question_content': 'How many sounding <Object> in the video\uff1f',
    'templ_values': '["acoustic_guitar"]',
    'question_deleted': 0,
    'anser': 'more than ten',
}


@pytest.fixture
def make_row():
    """make_row(**changes) returns a row of version 1."""
    return lambda **changes: ROW | changes


@pytest.fixture
def write(tmp_path):
    """write(name, *rows) writes an annotation file in `tmp_path` and returns its path."""

    def write(name, *rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
        return path

    return write


@pytest.fixture(scope='session')
def real_path():
    """real_path(name) returns the path of a published file; see published.py."""
    return published.path


@pytest.fixture(scope='session')
def real(real_path):
    """real(name) returns the questions of a published file, of which every row can be read."""
    found = {}

    def questions(name):
        if name not in found:
            found[name], complaints = music_avqa.read_questions(real_path(name), 'test')
            assert not complaints
        return found[name]

    return questions
