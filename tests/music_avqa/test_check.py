import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amuse_jax.errors import StageError
from amuse_jax.media import guarded, video
from amuse_jax.music_avqa import check, published_files
from tests.paths import ROOT

TYPES = ('["Audio", "Counting"]', '["Visual", "Counting"]')


def row(video_id, name='violin', **changes):
    return {
        'video_id': video_id,
        'type': TYPES[0],
        'question_content': 'Is there a <Object> sound?',
        'templ_values': json.dumps([name]),
        'anser': 'yes',
        **changes,
    }


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    """A folder of videos, and their paths by (picture seconds, sound seconds); written once."""
    return tmp_path_factory.mktemp('films'), {}


@pytest.fixture
def film(films, media, tmp_path):
    """film(name, picture, sound) copies a video of that length in seconds into `tmp_path`."""
    folder, written = films

    def film(name, picture=60.0, sound=60.0):
        if (picture, sound) not in written:
            video_stream = media.Picture(seconds=picture, fps=1, group=60)
            audio_stream = media.Sound(seconds=sound, sample_rate=8000)
            path = folder / f'{picture:g} {sound:g}.mp4'
            written[picture, sound] = media.write(path, video_stream, audio_stream)
        path = tmp_path / 'videos' / f'{name}.mp4'
        path.parent.mkdir(exist_ok=True)
        return Path(shutil.copy(written[picture, sound], path))

    return film


@pytest.fixture
def run(tmp_path):
    def run(scheme='plain', rephrased='', allowed=0.05, seconds=300.0, folders=''):
        limits = guarded.Limits(seconds, gigabytes=4.0)
        return check.check(tmp_path, scheme, rephrased, allowed, limits, 1, folders)

    return run


def test_a_whole_data_set(film, write, run):
    for name in 'abc':
        film(name)
        write(f'avqa-{dict(a="train", b="val", c="test")[name]}.json', row(name))
    report = run()
    assert not report.wrong and not report.videos
    assert report.remarks == ['The test set is whole: 1 questions.']
    for table in report.tables.values():
        assert [each['split'] for each in table] == ['train', 'val', 'test']
    assert [each['whole'] for each in report.tables['Videos']] == [1, 1, 1]
    assert [each['A Counting'] for each in report.tables['Questions, each once']] == [1, 1, 1]
    assert 'nothing is known about it' in report.text()


def test_each_kind_of_video(film, write, run, tmp_path):
    film('whole')
    film('early', picture=58.0)
    film('silent at last', sound=50.0)
    film('-starts', 59.5, 59.5)
    data = film('cut').read_bytes()
    (tmp_path / 'videos/cut.mp4').write_bytes(data[: len(data) // 2])
    film('mine_#02')
    moved = film('moved')
    (tmp_path / 'download').mkdir()
    moved.rename(tmp_path / 'download/moved.mp4')
    names = ['whole', 'early', 'silent at last', '-starts', 'cut', 'mine_#02_flip', 'his_flip']
    write('avqa-train.json', *[row(name) for name in names])
    write('avqa-val.json', row('whole', 'piano'))
    write('avqa-test.json', row('whole', 'flute'), row('whole', 'drum', unmatch_audio='moved'))
    report = run(allowed=0.5)
    assert not report.wrong
    assert {name: probe.state for name, probe in report.videos.items()} == {
        'early': 'short', 'silent at last': 'short', 'cut': 'unreadable', 'moved': 'missing',
        'mine_#02_flip': 'missing', 'his_flip': 'missing',
    }  # fmt: skip
    assert 'lasts 50.' in report.videos['silent at last'].reason
    assert 'picture ends' in report.videos['early'].reason
    train, _, test = report.tables['Videos']
    assert train == {
        'split': 'train', 'videos': 7, 'whole': 2, 'short': 2, 'unreadable': 1, 'missing': 2,
        'questions lost': 3,
    }  # fmt: skip
    assert test['questions lost'] == 1
    text = report.text()
    assert '1 of 2 questions cannot be asked' in text
    assert 'download/moved.mp4; name their folder (--videos=DIR' in text
    assert '1 of the missing videos are mirrored copies of videos that are there' in text

    (wrong,) = run(allowed=0.2).wrong
    assert wrong.startswith('4 of 8 videos cannot be used')


def test_a_file_that_hangs_its_reader_costs_no_other_file(film, write, run):
    """The reader is stopped, as if FFmpeg ran for ever; a new one reads the other videos."""
    for name in 'abc':
        path = film(name)
        write(f'avqa-{dict(a="train", b="val", c="test")[name]}.json', row(name))
    guarded.read(guarded.Limits(8.0, gigabytes=4.0), video.read_frames, path, [0.5], 8)
    (process,) = (p for p in multiprocessing.active_children() if p.name == guarded.PROCESS_NAME)
    os.kill(process.pid, signal.SIGSTOP)
    report = run(allowed=0.5, seconds=8.0)
    (probe,) = report.videos.values()
    assert list(report.videos) == ['a'] and probe.state == 'unreadable'
    assert probe.reason == 'reading it took longer than 8 s'
    assert [each['whole'] for each in report.tables['Videos']] == [0, 1, 1]
    assert not any(p.name == guarded.PROCESS_NAME for p in multiprocessing.active_children())


def test_files_that_are_not_the_published_ones(film, write, run):
    film('a')
    for split in ('train', 'val', 'test'):
        write(f'data/json_update/avqa-{split}.json', row('a', split))
    report = run('v1')
    assert any('avqa-train.json is not the published file: 1 rows' in w for w in report.wrong)
    (val,) = [w for w in report.wrong if 'avqa-val.json' in w]
    assert '1 rows, expected 4,568' in val and '1 Audio Counting, expected 511' in val
    assert len(report.wrong) == 3
    table = {each['split']: each['sum'] for each in report.tables['Questions, each once']}
    assert table == {
        'train': 1, 'val': 1, 'val, rows published': 4568, 'test': 1, 'test, rows published': 9129
    }  # fmt: skip


def test_missing_files_are_all_named(run, write):
    write('avqa-val.json', row('a'))
    report = run('v1')
    assert len(report.wrong) == 2
    assert report.wrong[0].startswith('data/json_update/avqa-train.json is missing; expected it in')
    (table,) = report.tables.values()
    assert [each['found'] for each in table] == ['no', 'avqa-val.json', 'no']
    assert len(run('v2-bias').wrong) == 2


def test_a_published_file_and_one_in_the_wrong_place(film, write, run, real_path, tmp_path):
    film('a')
    shutil.copy(real_path('v1_avqa-val'), tmp_path / 'avqa-val.json')
    write('avqa-train.json', row('a'))
    write('avqa-test.json', row('a', 'piano'))
    verdicts = {each['split']: each['verdict'] for each in run('v1').tables['Annotation files']}
    assert verdicts['val'] == 'is the published file'
    wrong = run('v1-json').wrong
    assert 'avqa-val.json is data/json_update/avqa-val.json, another file' in wrong


def test_a_published_file_written_anew(film, write, run, real_path, tmp_path):
    film('a')
    original = real_path('v1_avqa-val')
    rows = json.loads(original.read_text())
    write('avqa-val.json', *rows)
    write('avqa-train.json', row('a'))
    write('avqa-test.json', row('a', 'piano'))
    report = run('v1')
    verdicts = {each['split']: each['verdict'] for each in report.tables['Annotation files']}
    assert verdicts['val'] == 'counts as the published file'
    (remark,) = [text for text in report.remarks if 'avqa-val.json' in text]
    assert 'questions and answers were not compared' in remark
    ours, published = (
        published_files.git_blob(tmp_path / 'avqa-val.json'),
        published_files.git_blob(original),
    )
    assert f'(git blob {ours}, published {published})' in remark


def test_train_questions_among_the_test_questions(film, write, run):
    film('a')
    questions = [row('a', name) for name in ('violin', 'piano', 'flute')]
    write('avqa-train.json', *questions)
    write('avqa-val.json', row('a', 'drum'))
    write('avqa-test.json', *questions[:2])
    assert run().wrong == ['2 of 2 test questions are train questions too']


def test_malformed_and_repeated_rows(film, write, run):
    film('a')
    write('avqa-train.json', row('a'), row('a'), row('a', anser='perhaps'))
    write('avqa-val.json', row('a', 'drum'))
    write('avqa-test.json', row('a', 'piano'))
    report = run()
    (wrong,) = report.wrong
    assert wrong.startswith('1 of 3 rows of avqa-train.json are malformed: avqa-train.json, row 2')
    assert '1 rows are not taken as written: avqa-train.json, row 1: repeats' in report.text()


def test_lengths_and_sources_come_from_the_table_of_additional_videos(film, write, run, tmp_path):
    film('l9w43Zpm12A', 26.0, 26.0)
    film('a')
    table = 'video_id,start_time,duration,suffix,has_flip\nl9w43Zpm12A,0:00,0:26,,N\n'
    table += 'Zd37zn9Ijfk,9:05,1:00,_#03,Y\n'
    (tmp_path / 'MUSIC-AVQA-v2.0_additional_videos.csv').write_text(table, 'utf-8-sig')
    write('train_bias.json', row('a'), *[row('a', str(n)) for n in range(20)])
    write('test_bias.json', row('l9w43Zpm12A'), row('Zd37zn9Ijfk_#03'))
    report = run('v2-bias', allowed=0.5)
    assert list(report.videos) == ['Zd37zn9Ijfk_#03']
    text = report.text()
    assert 'Zd37zn9Ijfk_#03.mp4 from second 545 of Zd37zn9Ijfk' in text
    assert '3 videos, 1,230 were published' in text
    assert 'additional_videos.csv is not the published file (git blob ' in text


def test_rephrased_questions_are_counted(film, write, run):
    film('a')
    for split in ('train', 'val', 'test'):
        write(f'avqa-{split}.json', row('a', split))
    write('avqa-test-head.json', row('a', 'test', question_content='Does a <Object> sound?'))
    report = run(rephrased='avqa-test-head.json')
    assert report.tables['Videos'][-1]['split'] == 'rephrased'
    assert 'MUSIC-AVQA-R: 1 rows, 211,572 were published' in report.text()
    with pytest.raises(StageError, match='data.rephrased'):
        run(rephrased='nowhere.json')


def test_known_files_are_named_wherever_they_lie(film, write, run, monkeypatch):
    film('a')
    paths = {}
    for split in ('train', 'val', 'test'):
        paths[split] = write(f'avqa-{split}.json', row('a', split))
    for part in ('head', 'tail'):
        content = row('a', 'test', question_content=f'Does a {part} <Object> sound?')
        paths[part] = write(f'avqa-test-{part}.json', content)
    make, blob = published_files.PublishedFile, published_files.git_blob
    as_published = {'v1/avqa-test.json': make(blob(paths['test']))}
    monkeypatch.setattr(published_files, 'FILES', as_published)
    head, tail = (make(blob(paths[part]), is_copy=True) for part in ('head', 'tail'))

    def verdicts(head, tail):
        known = {'avqa-test-head.json': head, 'avqa-test-tail.json': tail}
        monkeypatch.setattr(published_files, 'REPHRASED', known)
        report = run(rephrased='.')
        rows = report.tables['Annotation files']
        return {each['file']: each['verdict'] for each in rows}, report.wrong

    found, wrong = verdicts(head, tail)
    assert not wrong and found == {
        'avqa-train.json': 'nothing is known about it',
        'avqa-val.json': 'nothing is known about it',
        'avqa-test.json': 'is v1/avqa-test.json',
        'avqa-test-head.json': 'is the published file',
        'avqa-test-tail.json': 'is the published file',
    }
    found, wrong = verdicts(tail, head)
    assert found['avqa-test-head.json'] == 'is avqa-test-tail.json, another file'
    assert len(wrong) == 2
    other = make('0' * 40, is_copy=True)  # someone's copy with another indent
    found, wrong = verdicts(other, tail)
    assert found['avqa-test-head.json'] == 'nothing is known about it' and not wrong


def command(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'amuse_jax.music_avqa', *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_command(film, write, tmp_path):
    names = [f'{number:08d}' for number in range(12)]
    for name in names:
        film(name)
    write('avqa-train.json', *[row(name) for name in names])
    write('avqa-val.json', row(names[0], 'piano'))
    write('avqa-test.json', row(names[0], 'flute'))
    found = tmp_path / 'a new folder' / 'found.json'
    arguments = ('check', f'--root={tmp_path}', '--annotations=plain', '--workers=2')
    result = command(*arguments, f'--json={found}')
    assert result.returncode == 0, result.stderr
    assert 'Fit to train on.' in result.stdout and '12/12' in result.stderr
    assert json.loads(found.read_text())['videos'] == {}

    (tmp_path / 'videos' / f'{names[3]}.mp4').unlink()
    result = command(*arguments, f'--json={found}')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'amuse_jax: training on this would be wrong:\n- 1 of 12 videos' in result.stderr
    assert json.loads(found.read_text())['videos'][names[3]]['state'] == 'missing'


@pytest.mark.parametrize(
    'arguments, sentence',
    [
        (('check',), "--root is ''; expected the folder"),
        (('check', '--root=/no/where'), "--root is '/no/where'; expected the folder"),
        (('check', '--root=tests'), 'json_update/avqa-train.json is missing'),
    ],
)
def test_a_mistake_is_named(arguments, sentence):
    result = command(*arguments)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert sentence in result.stderr


def test_the_videos_may_be_where_the_archives_put_them(film, write, run, tmp_path):
    for name in 'abc':
        film(name)
        write(f'avqa-{dict(a="train", b="val", c="test")[name]}.json', row(name))
    (tmp_path / 'data').mkdir()
    (tmp_path / 'videos').rename(tmp_path / 'data/video')
    assert not run().videos
    (tmp_path / 'data/video').rename(tmp_path / 'films')
    with pytest.raises(StageError, match='has no folder videos/'):
        run()
    assert not run(folders='films').videos


def test_val_videos_that_are_train_videos_are_counted(film, write, run):
    film('a')
    for split in ('train', 'val', 'test'):
        write(f'avqa-{split}.json', row('a', split))
    (remark,) = [text for text in run().remarks if 'val videos' in text]
    assert remark.startswith('1 of 1 val videos are train videos too')


def test_how_to_go_on_without_videos(film, write, run):
    film('a')
    write('avqa-train.json', *[row('a', str(number)) for number in range(3)], row('gone'))
    write('avqa-val.json', row('a', 'drum'))
    write('avqa-test.json', row('a', 'piano'))
    (wrong,) = run().wrong
    assert wrong.endswith('set --config.data.max_broken_share=0.51')
    assert not run(allowed=0.51).wrong
