"""The stage `features` on real little videos: arrays by record, resumption, and broken videos."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.config import default_config
from amuse_jax.errors import PartDone, StageError
from amuse_jax.features import (
    catalogue,
    clip,
    fbank,
    frames,
    resnet18,
    shards,
    stage,
    vggish,
    worker,
)
from amuse_jax.media import audio
from amuse_jax.training import stored
from tests.media import writing
from tests.paths import ROOT
from tests.training import processes

# Picture and sound of each record: version 2 also shows a video with the sound of another one.
RECORDS = [('d', 'd'), ('a', 'a'), ('a', 'b'), ('b', 'b'), ('c', 'c')]
SECONDS = {'a': 8.4, 'b': 2.0, 'c': 13.0, 'd': 8.4}
RATES = {'a': 10, 'b': 4, 'c': 25, 'd': 10}
TEXTS = ['Is there a violin?', 'How many cellos?', 'Is there a violin?']


@pytest.fixture(scope='module')
def data_set(tmp_path_factory):
    """Write four videos and five records of them; return the folders render and prepare."""
    root = tmp_path_factory.mktemp('data')
    render, prepare = root / 'render', root / 'prepare'
    (render / 'videos').mkdir(parents=True)
    for name, seconds in SECONDS.items():
        writing.write_video(
            render / f'videos/{name}.mp4',
            writing.Picture(seconds=seconds, fps=RATES[name], width=160, height=96),
            writing.Sound(seconds=seconds, sample_rate=44100 if name == 'c' else 32000),
        )
    write_tables(prepare, RECORDS)
    return render, prepare


def write_tables(prepare, records):
    prepare.mkdir()
    videos = [
        {'video_id': video, 'sound_id': sound, 'seconds': SECONDS.get(sound, 2.0)}
        for video, sound in records
    ]
    (prepare / 'videos.json').write_text(json.dumps(videos))
    rows = [{'text': text, 'record': 0} for text in TEXTS]
    (prepare / 'questions.json').write_text(json.dumps(rows))


def settings(weights=None, *arrays, **data):
    config = default_config()
    config.data.update(workers=1, shard_videos=2, **data)
    config.features.arrays = arrays
    if weights is not None:
        config.features.update(vars(weights))
    return config


def run_in_process(config, folder, data_set):
    """Call `worker.run` in this process, which is faster and keeps the test's patches."""
    folder.mkdir(exist_ok=True)
    worker.run(config, folder, *data_set)
    return json.loads((folder / 'report.json').read_text())


@pytest.mark.slow
def test_every_array_has_its_shape_and_its_rows(weights, data_set, tmp_path):
    config = settings(weights, *catalogue.ARRAYS)
    report = run_in_process(config, tmp_path / 'features', data_set)
    assert report == {
        'records': 5, 'questions': 2, 'arrays': list(catalogue.ARRAYS), 'unreadable': {},
    }  # fmt: skip
    arrays = stored.read(tmp_path / 'features', [*catalogue.ARRAYS, 'seconds'])
    for extractor in catalogue.EXTRACTORS:
        count = 2 if extractor.reads == 'question' else 5
        for name, shape in extractor.shapes.items():
            array = arrays[name]
            assert array.shape == (count, *shape) and array.dtype == np.float16, name
            assert isinstance(array, np.memmap) and np.isfinite(array).all()
            if count == 2:
                continue
            same = (1, 2) if extractor.reads == 'picture' else (2, 3)
            np.testing.assert_array_equal(array[same[0]], array[same[1]])
            assert (array[1] != array[3]).any() and (array[1] != array[4]).any()
    ends = np.array([[SECONDS[sound]] for _, sound in RECORDS])
    np.testing.assert_array_equal(arrays['seconds'], np.arange(60) < ends)
    assert not arrays['vggish'][~arrays['seconds']].any()
    assert not arrays['clip_patches'][3, 2:].any() and arrays['clip_patches'][3, :2].any()
    for name in ('ast', 'log_mel_seconds', 'resnet18'):  # steps begin at 0, 6 and 12 s
        begun = arrays[name].any(tuple(range(2, arrays[name].ndim)))
        assert begun.sum(1).tolist()[3:] == [1, 3], name
    check_against_the_extractors(arrays, weights, data_set[0] / 'videos')
    assert {path.name for path in (tmp_path / 'features').iterdir()} == {
        *(f'{name}.npy' for name in arrays), 'questions.json', 'report.json',
    }  # fmt: skip


def check_against_the_extractors(arrays, weights, videos):
    samples, seconds = audio.read_audio(videos / 'c.mp4', 16000, 60.0)
    expected = vggish.Seconds(weights.vggish)(samples, seconds)['vggish']
    np.testing.assert_allclose(arrays['vggish'][4], expected, atol=2e-3, rtol=1e-3)
    expected = fbank.LAVISHWindows()(samples, seconds)['fbank']
    np.testing.assert_allclose(arrays['fbank'][4], expected, atol=2e-3)
    maps = resnet18.Maps(weights.resnet18)
    pictures = frames.read(videos / 'c.mp4', maps.moments, maps.fit)
    np.testing.assert_allclose(
        arrays['resnet18'][4], maps(*pictures)['resnet18'], atol=2e-3, rtol=2e-3
    )


def test_arrays_of_questions_follow_the_list_of_texts(weights, data_set, tmp_path):
    folder = tmp_path / 'features'
    report = run_in_process(settings(weights, 'clip_question'), folder, data_set)
    texts = json.loads((folder / 'questions.json').read_text())
    assert report['questions'] == 2 and sorted(texts) == sorted(set(TEXTS)) == texts
    expected = clip.Questions(weights.clip)(texts)['clip_question']
    found = np.load(folder / 'clip_question.npy')
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert not (folder / 'clip_words.npy').exists()


def test_without_arrays_of_questions_there_is_no_list_of_them(data_set, tmp_path):
    report = run_in_process(settings(None, 'fbank'), tmp_path / 'features', data_set)
    assert report['questions'] == 0
    assert not (tmp_path / 'features' / 'questions.json').exists()


def test_a_video_that_broke_after_prepare_gets_zeros_and_a_reason(data_set, tmp_path, caplog):
    render, prepare = data_set
    shutil.copytree(render, tmp_path / 'render')
    video = tmp_path / 'render/videos/c.mp4'
    video.write_bytes(video.read_bytes()[:2000])
    (tmp_path / 'features').mkdir()
    inputs = {'render': tmp_path / 'render', 'prepare': prepare}
    config = settings(None, 'fbank', 'log_mel_seconds')
    report = stage.run(config, tmp_path / 'features', inputs)
    assert list(report['unreadable']) == ['c'] and 'features: c gets features of 0' in caplog.text
    arrays = stored.read(tmp_path / 'features', ['fbank', 'log_mel_seconds', 'seconds'])
    for array in arrays.values():
        assert [row.any() for row in array] == [True] * 4 + [False]


def test_a_video_that_is_gone_stops_the_stage(data_set, tmp_path):
    render, prepare = data_set
    shutil.copytree(render, tmp_path / 'render')
    (tmp_path / 'render/videos/b.mp4').unlink()
    with pytest.raises(StageError, match='b.mp4 could be read by the prepare stage.*add prepare'):
        run_in_process(settings(None, 'fbank'), tmp_path / 'f', (tmp_path / 'render', prepare))
    with pytest.raises(StageError, match='does not see .*mount its disk'):
        run_in_process(settings(None, 'fbank'), tmp_path / 'f', (tmp_path / 'gone', prepare))


JOB = """
import sys
from pathlib import Path
from amuse_jax.config import default_config
from amuse_jax.features import stage
if __name__ == '__main__':
    folder, render, prepare = map(Path, sys.argv[1:4])
    config = default_config()
    config.data.update(workers=1, shard_videos=1)
    config.features.arrays = tuple(sys.argv[4].split(','))
    config.features.resnet18 = sys.argv[5]
    stage.run(config, folder, {'render': render, 'prepare': prepare})
    assert not {'torch', 'torchvision', 'transformers'} & set(sys.modules)
"""


def start_job(tmp_path, *arguments):
    (tmp_path / 'job.py').write_text(JOB)
    return processes.start(
        [sys.executable, tmp_path / 'job.py', *arguments],
        tmp_path / 'log',
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
        start_new_session=True,
    )


@pytest.mark.slow
def test_the_process_of_the_run_does_not_import_pytorch(weights, data_set, tmp_path):
    folder = tmp_path / 'features'
    folder.mkdir()
    job = start_job(tmp_path, folder, *data_set, 'resnet18', weights.resnet18)
    assert job.wait(300) == 0, job.log.read_text()
    assert np.load(folder / 'resnet18.npy', mmap_mode='r').shape == (5, 10, 14, 14, 512)


@pytest.mark.slow
def test_a_killed_stage_keeps_its_shards(tmp_path, data_set, monkeypatch):
    """Kill the process of the run, without notice, after some shards."""
    source, (render, prepare) = data_set[0] / 'videos/b.mp4', (tmp_path / 'r', tmp_path / 'p')
    (render / 'videos').mkdir(parents=True)
    names = [f'v{index:03d}' for index in range(150)]
    for name in names:
        os.link(source, render / f'videos/{name}.mp4')
    write_tables(prepare, [(name, name) for name in names])
    folder = tmp_path / 'features'
    folder.mkdir()
    job = start_job(tmp_path, folder, render, prepare, 'fbank', '')

    def finished():
        return sorted((folder / 'shards/fbank').glob('0*.npz'))

    processes.wait_until(lambda: len(finished()) >= 3, [job])
    job.send_signal(signal.SIGKILL)
    job.wait()
    processes.wait_until(lambda: group_has_ended(job.pid), [])
    kept = finished()
    assert 3 <= len(kept) < 150 and not (folder / 'fbank.npy').exists()
    written, write = [], shards.write_videos

    def write_and_tell(job, ids, path):
        written.extend(ids)
        write(job, ids, path)

    monkeypatch.setattr(shards, 'write_videos', write_and_tell)
    config = settings(None, 'fbank')
    config.data.shard_videos = 1
    run_in_process(config, folder, (render, prepare))
    assert written == names[len(kept) :]
    found = np.load(folder / 'fbank.npy')
    assert found.shape[0] == 150 and found[0].any() and (found == found[:1]).all()


def group_has_ended(group):
    """Whether no process of a group is left: a killed parent's workers end by themselves."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_stage_that_ended_between_two_arrays_goes_on(weights, data_set, tmp_path, monkeypatch):
    folder, config = tmp_path / 'features', settings(weights, 'fbank', 'clip_question')

    def die(job, texts, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, 'write_questions', die)
        patch.setattr(worker.catalogue, 'EXTRACTORS', catalogue.EXTRACTORS[::-1])  # fbank first
        run_in_process(config, folder, data_set)
    before = (folder / 'fbank.npy').stat().st_mtime_ns
    report = run_in_process(config, folder, data_set)
    assert report['arrays'] == ['clip_question', 'fbank']
    assert (folder / 'fbank.npy').stat().st_mtime_ns == before


def test_parts_write_all_extractors_and_another_run_merges_them(data_set, tmp_path):
    folder = tmp_path / 'features'
    arrays = 'fbank', 'log_mel_seconds'
    for part in ('1/2', '2/2'):
        with pytest.raises(PartDone):
            run_in_process(settings(None, *arrays, part=part), folder, data_set)
    assert {path.parent.name for path in folder.glob('shards/*/0*.npz')} == {'fbank', 'log_mel'}
    assert not (folder / 'report.json').exists()
    run_in_process(settings(None, *arrays), folder, data_set)
    run_in_process(settings(None, *arrays), tmp_path / 'whole', data_set)
    for name in (*arrays, 'seconds'):
        np.testing.assert_array_equal(
            np.load(folder / f'{name}.npy'), np.load(tmp_path / 'whole' / f'{name}.npy')
        )


def test_a_complete_stage_is_not_made_again(data_set, tmp_path):
    folder, inputs = tmp_path / 'features', dict(zip(('render', 'prepare'), data_set))
    report = run_in_process(settings(None, 'fbank'), folder, data_set)
    (folder / 'fbank.npy').unlink()  # it would come back
    assert stage.run(settings(None, 'fbank'), folder, inputs) == report
    assert not Path(folder / 'fbank.npy').exists()
