import json
import os
import signal
import sys

import numpy as np
import pytest

from amuse_jax.data import records
from amuse_jax.data import stage as prepare
from amuse_jax.errors import NewerFormat, StageError
from amuse_jax.media.log_mel import LogMel, mel_filters
from amuse_jax.system import formats
from tests.data.small_set import digests, read_json, row, run, settings, write_rows, write_small_set
from tests.paths import ROOT
from tests.training import processes


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'set/videos').mkdir(parents=True)
    return tmp_path / 'set'


def test_a_record_of_each_video(root, media, tmp_path):
    write_small_set(root, media)
    summary = run(root, tmp_path / 'out')
    assert summary == {
        'videos': 4,
        'questions': {'train': 2, 'val': 1, 'test': 1},
        'quarantined': 0,
        'reasons': {},
        'malformed_rows': 0,
    }
    reader = records.RecordReader(tmp_path / 'out/records')
    videos = read_json(tmp_path / 'out', 'videos')
    assert [video['video_id'] for video in videos] == ['v0', 'v1', 'v2', 'v3']
    assert [video['position'] for video in videos] == [0, 1, 0, 1]
    for index, video in enumerate(videos):
        record = reader[index]
        assert record['video_id'] == record['sound_id'] == video['video_id']
        assert record['frames'].shape == (3, 16, 16, 3) and record['frames'].dtype == np.uint8
        assert record['log_mel'].shape == (3, 201, 64) and record['log_mel'].dtype == np.float16
        assert record['frame_mask'].all() and record['audio_mask'].all()
        assert record['seconds'] == video['seconds'] == pytest.approx(6, abs=0.1)
        (question,) = record['questions']
        assert question['text'] == 'Is there a violin sound?' and question['values'] == ['violin']
    for question in read_json(tmp_path / 'out', 'questions'):
        assert videos[question['record']]['video_id'] == question['video_id']
    # The 440 Hz tone of the videos is the loudest by far.
    loudest = records.RecordReader(tmp_path / 'out/records')[0]['log_mel'].mean((0, 1)).argmax()
    filters = mel_filters(LogMel.from_settings(settings(root)))
    assert filters[round(440 / 32000 * 1024), loudest] > 0


def test_only_the_videos_of_the_wanted_splits(root, media, tmp_path):
    write_small_set(root, media)
    (tmp_path / 'out').mkdir()
    summary = prepare.run(settings(root), tmp_path / 'out', {}, splits=('test',))
    assert summary['questions'] == {'test': 1} and summary['videos'] == 1
    assert [video['video_id'] for video in read_json(tmp_path / 'out', 'videos')] == ['v2']


def test_each_kind_of_bad_input(root, media, tmp_path):
    """One run meets many kinds of unusual files; each is read, or set aside with a reason."""
    videos, write = root / 'videos', media.write
    short = dict(seconds=6, fps=5)
    whole = write(videos / 'whole.mp4', media.Picture(**short), media.Sound(seconds=6))
    data = whole.read_bytes()
    (videos / 'truncated.mp4').write_bytes(data[: len(data) // 2])
    (videos / 'empty.mp4').write_bytes(b'')
    (videos / 'text.mp4').write_text('not a video\n' * 100)
    write(videos / 'no sound.mp4', media.Picture(**short), None)
    write(videos / 'no picture.mp4', None, media.Sound(seconds=6))
    write(videos / '3 seconds.mp4', media.Picture(fps=5), media.Sound(seconds=3))
    long = media.Sound(seconds=600, sample_rate=8000, codec='flac', format='s16')
    write(videos / '10 minutes.mp4', media.Picture(seconds=600, fps=1, group=60), long)
    write(videos / '1 fps.mp4', media.Picture(seconds=6, fps=1), media.Sound(seconds=6))
    quarter = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    write(videos / 'rotated.mp4', media.Picture(**short, matrix=quarter), media.Sound(seconds=6))
    many = media.Sound(seconds=6, sample_rate=96000, layout='5.1', channels=6)
    write(videos / '6 channels.mp4', media.Picture(**short), many)
    write(videos / 'a name #2 with % & ü.mp4', media.Picture(**short), media.Sound(seconds=6))
    names = [path.stem for path in videos.iterdir()] + ['missing']
    evil = [row(name) for name in ('../../x', '/etc/passwd', 'a\x00b')]
    write_rows(root, *[row(name) for name in names], *evil)

    out = tmp_path / 'out'
    summary = run(root, out, max_broken_share=0.6, workers=2, shard_videos=4)
    quarantine = {entry['video_id']: entry['reason'] for entry in read_json(out, 'quarantine')}
    assert quarantine.keys() == {
        'truncated', 'empty', 'text', 'no sound', 'no picture', 'missing'
    }  # fmt: skip
    assert quarantine['truncated'].startswith('the file is not a video, or it is cut off')
    assert quarantine['text'].startswith('the file is not a video')
    assert quarantine['empty'] == 'the file is empty'
    assert quarantine['missing'] == 'the file does not exist'
    assert quarantine['no sound'] == 'it has no sound'
    assert quarantine['no picture'] == 'it has no picture'
    assert summary['videos'] == len(names) - 6 and summary['quarantined'] == 6
    assert summary['malformed_rows'] == len(read_json(out, 'malformed_rows')) == 3

    reader = records.RecordReader(out / 'records')
    found = {video['video_id']: reader[index] for index, video in enumerate(reader.videos)}
    masks = {name: record['frame_mask'].tolist() for name, record in found.items()}
    assert (
        masks.pop('3 seconds') == found['3 seconds']['audio_mask'].tolist() == [True, True, False]
    )
    assert all(mask == [True] * 3 for mask in masks.values())
    assert found['10 minutes']['seconds'] == pytest.approx(600, abs=1)
    # The rotated frames are not exactly equal, because they were scaled before they were rotated.
    rotated = np.rot90(found['whole']['frames'], -1, (1, 2)).astype(int)
    assert np.abs(found['rotated']['frames'] - rotated).mean() < 8
    np.testing.assert_array_equal(
        found['a name #2 with % & ü']['log_mel'], found['whole']['log_mel']
    )


def test_picture_and_sound_of_two_videos(root, media, tmp_path):
    write_small_set(root, media, 3)
    swapped = row('v0', 'no', unmatch_audio='v2', templ_values=['violin'])
    silent = row('v0', 'no', unmatch_audio='v9')
    write_rows(root, row('v0'), row('v1'), row('v2'), swapped, silent)
    run(root, tmp_path / 'out', max_broken_share=0.5)
    reader = records.RecordReader(tmp_path / 'out/records')
    pairs = [(video['video_id'], video['sound_id']) for video in reader.videos]
    assert pairs == [('v0', 'v0'), ('v0', 'v2'), ('v1', 'v1'), ('v2', 'v2')]
    np.testing.assert_array_equal(reader[1]['frames'], reader[0]['frames'])
    np.testing.assert_array_equal(reader[1]['log_mel'], reader[3]['log_mel'])
    assert read_json(tmp_path / 'out', 'quarantine') == [
        {'video_id': 'v0', 'reason': 'the file does not exist (the sound of v9)'}
    ]


def test_version_2_from_a_clone_with_rephrased_questions(root, media, tmp_path):
    write_small_set(root, media, 3)
    for path in root.glob('*.json'):
        path.unlink()
    instruments = ('violin', 'piano', 'flute', 'drum', 'banjo', 'cello', 'tuba', 'erhu')
    train = [row(f'v{v}', templ_values=[name]) for v in range(3) for name in instruments]
    rephrased = row('v1', question_content='Does a <Object> sound?', split='tail')
    for name, rows in {
        'data/balance_full_set/train_balance.json': [*train, train[0]],
        'data/balance_full_set/test_balance.json': [row('v1', 'no', unmatch_audio='v2')],
        'R/questions.json': [rephrased],
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(rows))
    out = tmp_path / 'out'
    summary = run(root, out, annotations='v2-balance', rephrased='R/questions.json')
    counts = summary['questions']
    assert counts.keys() == {'train', 'val', 'test', 'rephrased'}
    assert counts['train'] + counts['val'] == 24 and counts['test'] == counts['rephrased'] == 1
    assert summary['videos'] == 4  # one picture with two sounds
    (remark,) = read_json(out, 'remarks')
    assert remark.startswith('train_balance.json, row 24: repeats')
    questions = {q['split']: q for q in read_json(out, 'questions')}
    assert questions['rephrased']['text'] == 'Does a violin sound?'
    assert questions['rephrased']['frequency'] == 'tail'
    assert questions['test']['sound_id'] == 'v2'


def test_too_many_broken_videos_stop_the_run_until_they_are_repaired(root, media, tmp_path):
    write_small_set(root, media)
    good = (root / 'videos/v3.mp4').read_bytes()
    (root / 'videos/v3.mp4').write_bytes(good[:1000])
    with pytest.raises(StageError, match=r'1 of 4 videos .*allows 5%\): v3 \(the file'):
        run(root, tmp_path / 'out')
    first = tmp_path / 'out/records/00000-of-00002.array_record'
    before = first.stat().st_mtime_ns
    (root / 'videos/v3.mp4').write_bytes(good)
    assert run(root, tmp_path / 'out')['videos'] == 4
    assert first.stat().st_mtime_ns == before


def test_videos_are_not_set_aside_because_their_disk_is_gone(root, media, tmp_path, monkeypatch):
    write_small_set(root, media, 3)
    write = prepare.write_records

    def lose_the_disk(work, pairs, path):
        if path.name.endswith('00001-of-00002.array_record'):
            (root / 'videos').rename(root / 'elsewhere')
        write(work, pairs, path)

    with monkeypatch.context() as patch:
        patch.setattr(prepare, 'write_records', lose_the_disk)
        with pytest.raises(StageError, match=r'v2.mp4 was there when prepare began'):
            run(root, tmp_path / 'out')
    (root / 'elsewhere').rename(root / 'videos')
    assert run(root, tmp_path / 'out')['videos'] == 3


def test_a_damaged_shard_is_written_again(root, media, tmp_path):
    write_small_set(root, media)
    run(root, tmp_path / 'out')
    before = digests(tmp_path / 'out')
    shard = tmp_path / 'out/records/00001-of-00002.array_record'
    shard.write_bytes(shard.read_bytes()[:-100])
    run(root, tmp_path / 'out')
    assert digests(tmp_path / 'out') == before


def test_a_newer_shard_is_refused_and_stays(root, media, tmp_path, monkeypatch):
    write_small_set(root, media)
    with monkeypatch.context() as newer:
        newer.setattr(formats, 'RECORD_FORMAT', formats.RECORD_FORMAT + 1)
        run(root, tmp_path / 'out')
    before = digests(tmp_path / 'out')
    with pytest.raises(NewerFormat, match='00-of-00002.array_record has format 2, .* to 1'):
        run(root, tmp_path / 'out')
    assert digests(tmp_path / 'out') == before


def test_malformed_rows_past_the_share_stop_the_run(root, media, tmp_path):
    write_small_set(root, media)
    write_rows(root, row('v0'), row('v1'), row('v2'), row('v3', anser='maybe'))
    with pytest.raises(StageError, match=r'1 of 2 rows .*row 1: the answer'):
        run(root, tmp_path / 'out')


def test_missing_parts_of_the_data_set_are_named_in_one_sentence(root, media, tmp_path):
    def message(**changes):
        with pytest.raises(StageError) as caught:
            run(root, tmp_path / 'out', **changes)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    assert 'avqa-train.json does not exist' in message()
    write_small_set(root, media, 3)
    (root / 'avqa-val.json').write_text('[]')
    assert 'avqa-val.json holds no questions' in message()
    write_small_set(root, media, 3)
    assert 'GB' in message(image_size=10_000_000)
    (root / 'videos').rename(root / 'films')
    assert 'has no folder videos/' in message()
    with pytest.raises(StageError, match='nowhere does not exist'):
        run(root / 'nowhere', tmp_path / 'out')


SCRIPT = """
import sys
from pathlib import Path
from amuse_jax.data import stage as prepare
from amuse_jax.config import default_config
if __name__ == '__main__':
    config = default_config()
    config.data.update(root=sys.argv[1], segments=3, segment_seconds=2.0, image_size=16)
    config.data.update(shard_videos=1, workers=int(sys.argv[3]))
    prepare.run(config, Path(sys.argv[2]), {})
"""


def group_has_ended(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_killed_and_started_again(root, media, tmp_path):
    """A run that is killed twice, once with workers, ends with the bytes of an undisturbed run.

    The workers of the killed run end with it, and finished shards are not written again.
    """
    write_small_set(root, media, 10)
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    whole.mkdir()
    killed.mkdir()

    def start(folder, workers):
        command = [sys.executable, str(script), str(root), str(folder), str(workers)]
        env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
        return processes.start(command, tmp_path / 'log', env=env, start_new_session=True)

    def has(shards):
        return len(list(killed.glob('records/0*'))) >= shards

    for workers, shards in ((1, 1), (2, 4)):
        process = start(killed, workers)
        processes.wait_until(lambda: has(shards), [process])  # noqa: B023
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (killed / 'videos.json').exists()
        processes.wait_until(lambda: group_has_ended(process.pid), ())  # noqa: B023
    finished = {path: path.stat().st_mtime_ns for path in killed.glob('records/0*')}
    processes.wait_for_exit([start(killed, 2)])
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    processes.wait_for_exit([start(whole, 1)])
    assert digests(killed) == digests(whole)


def test_a_sound_with_one_nan_is_set_aside(root, media, tmp_path):
    class Broken(media.Sound):
        def samples(self):
            samples = super().samples()
            samples[:, 30000] = np.nan
            return samples

    write_small_set(root, media)
    sound = Broken(seconds=6, codec='pcm_f32le', format='flt')
    media.write(root / 'videos/a.mov', media.Picture(seconds=6), sound)
    (root / 'videos/a.mov').rename(root / 'videos/v1.mp4')
    summary = run(root, tmp_path / 'out', max_broken_share=0.5)
    assert list(summary['reasons']) == ['its sound holds samples that are not finite']
    assert [v['video_id'] for v in read_json(tmp_path / 'out', 'videos')] == ['v0', 'v2', 'v3']


def test_lost_videos_say_what_they_mean_and_how_to_go_on(root, media, tmp_path):
    write_small_set(root, media)
    write_rows(root, *[row(f'v{index}') for index in range(4)], row('v4'), row('gone'))
    media.write(root / 'videos/v4.mp4', media.Picture(seconds=6), media.Sound(seconds=6))
    with pytest.raises(StageError) as caught:
        run(root, tmp_path / 'out')
    message = str(caught.value)
    assert '1 of 6 videos cannot be used' in message and 'gone (the file does not exist)' in message
    assert 'The test set is not whole: 1 of 2 questions cannot be asked.' in message
    advice = message.rpartition('--config.data.max_broken_share=')[2]
    assert run(root, tmp_path / 'out', max_broken_share=float(advice))['videos'] == 5


def test_videos_are_found_where_the_archives_put_them(root, media, tmp_path):
    write_small_set(root, media)
    run(root, tmp_path / 'expected')
    (root / 'data').mkdir()
    (root / 'videos').rename(root / 'data/video')
    (root / 'MUSIC-AVQA-videos-Real').mkdir()
    (root / 'data/video/v1.mp4').rename(root / 'MUSIC-AVQA-videos-Real/v1.mp4')
    run(root, tmp_path / 'usual', workers=2)
    (root / 'data/video').rename(tmp_path / 'films')
    (root / 'MUSIC-AVQA-videos-Real').rename(tmp_path / 'films/more')
    run(root, tmp_path / 'named', videos=str(tmp_path / 'films'))
    expected = digests(tmp_path / 'expected')
    assert digests(tmp_path / 'usual') == digests(tmp_path / 'named') == expected


def test_longer_videos_are_named(root, media, tmp_path):
    write_small_set(root, media)
    media.write(root / 'videos/v1.mp4', media.Picture(seconds=9), media.Sound(seconds=9))
    run(root, tmp_path / 'out')
    (remark,) = read_json(tmp_path / 'out', 'remarks')
    assert remark == 'only the first 6 s count of 1 longer videos: v1 (9 s)'


def test_deleted_rows_are_no_questions(root, media, tmp_path):
    write_small_set(root, media)
    write_rows(root, *[row(f'v{i}') for i in range(3)], row('v3', question_deleted=1))
    summary = run(root, tmp_path / 'out')
    assert summary['videos'] == 3 and summary['malformed_rows'] == 0
    (remark,) = read_json(tmp_path / 'out', 'remarks')
    assert remark.startswith('avqa-train.json, row 1: left out')
