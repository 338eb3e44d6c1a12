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
    """make_row(**changes): a row of version 1."""
    return lambda **changes: ROW | changes


@pytest.fixture
def write(tmp_path):
    """write(name, *rows): an annotation file in the data set `tmp_path`; returns its path."""

    def write(name, *rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
        return path

    return write


@pytest.fixture(scope='session')
def real_path():
    """real_path(name): one of the published files, which are not part of this project."""
    return published.path


@pytest.fixture(scope='session')
def real(real_path):
    """real(name): its questions; every row of it can be read."""
    found = {}

    def questions(name):
        if name not in found:
            found[name], complaints = music_avqa.read_questions(real_path(name), 'test')
            assert not complaints
        return found[name]

    return questions
