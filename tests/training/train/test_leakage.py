import dataclasses
import re

import numpy as np
import pytest

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import Question
from amuse_jax.training.train import leakage
from tests.paths import SHARED

REAL = SHARED / 'data/music_avqa'


def question(video='v', text='Is there a violin sound?', number='1', sound=None):
    return Question(
        number, video, sound or video, 'test', 'Audio', 'Counting', text, (), text, 'yes'
    )


def test_a_leaked_question_is_found_by_picture_sound_and_words(tmp_path):
    known = question(number='7')
    leakage.save_known_questions(tmp_path, [known, question('w')])
    others = [
        dataclasses.replace(known, question_id='90', answer='no', split='val', template='?'),
        question('w', sound='v', number='91'),
        question(text='Is there a piano sound?', number='92'),
        question('u', number='93'),
        question(text='is there  a violin sound', number='94'),  # as MUSIC-AVQA-R writes them
    ]
    assert leakage.find_leaked(tmp_path, others).tolist() == [True, False, False, False, True]


def test_a_rephrased_question_is_leaked_if_its_first_wording_is(tmp_path):
    leakage.save_known_questions(tmp_path, [question(number='avqa-train:5')])
    others = [
        question(text='Can a violin be heard?', number='7'),
        question(number='7'),
        question('w', text='Can a violin be heard?', number='7'),
        question(text='Can a piano be heard?', number='8'),
    ]
    assert leakage.find_leaked(tmp_path, others).tolist() == [True, True, False, False]


def test_the_file_holds_sorted_unique_hashes_and_no_other_file_remains(tmp_path):
    leakage.save_known_questions(tmp_path, [question(str(n % 5)) for n in range(20)])
    hashes = np.load(tmp_path / leakage.FILE, allow_pickle=False)
    assert hashes.dtype == np.uint64 and len(hashes) == 5 and (np.diff(hashes) > 0).all()
    assert [path.name for path in tmp_path.iterdir()] == [leakage.FILE]
    # This hash must never change: files of older runs must stay readable.
    leakage.save_known_questions(tmp_path, [question()])
    assert np.load(tmp_path / leakage.FILE).tolist() == [12031487905239058439]


@pytest.mark.parametrize('content', [None, b'', b'\x93NUMPY', 'text', 'pickle'])
def test_a_missing_or_damaged_file_is_reported_in_one_sentence(tmp_path, content):
    path = tmp_path / leakage.FILE
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        np.save(path, np.array([content], object if content == 'pickle' else None))
    with pytest.raises(
        StageError, match=r'it is unknown which questions .* --redo=train'
    ) as caught:
        leakage.find_leaked(tmp_path, [question()])
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_more_than_one_in_a_hundred_is_refused_unless_reported_separately():
    few, many, all_of_them = (np.arange(300) < count for count in (3, 4, 300))
    leakage.check(few, 'refuse')
    with pytest.raises(StageError, match=r'^4 of the 300 test questions .*leaked=apart'):
        leakage.check(many, 'refuse')
    leakage.check(many, 'apart')
    with pytest.raises(StageError, match='300 of the 300 .* No other question is left'):
        leakage.check(all_of_them, 'apart')


def test_questions_of_version_1_are_found_in_version_2(tmp_path):
    paths = [REAL / f'{name}.json' for name in ('v1_avqa-val', 'v2_test_bias')]
    if not all(path.exists() for path in paths):
        pytest.skip(f'{REAL} is not here')
    val, test = (music_avqa.read_questions(path, 'test')[0] for path in paths)
    leakage.save_known_questions(tmp_path, val)
    found = leakage.find_leaked(tmp_path, test)
    # The ids in the files find most of them; some questions have lost their id.
    shared = {q.question_id for q in val}
    by_id = np.array([q.question_id in shared for q in test])
    assert by_id.sum() == 363
    assert found[by_id].all() and 0 <= found.sum() - 363 < 10
    with pytest.raises(StageError, match=re.escape('of the 9,119 test questions')):
        leakage.check(found, 'refuse')
