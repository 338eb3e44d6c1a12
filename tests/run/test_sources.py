"""The stage prepare on a data set that moves or changes under it."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from amuse_jax.errors import StageError
from amuse_jax.run import format_1, plan, results, status
from amuse_jax.run.stage import run_stage
from tests.data import small_set
from tests.media import writing

media = writing.media  # the fixture


@pytest.fixture
def root(media, tmp_path):
    small_set.write_small_set(tmp_path / 'mnt/data', media, 6)
    return tmp_path / 'mnt/data'


def prepare(root, workdir, redo=(), **changes):
    """Run the stage prepare; return whether it did anything, and its fingerprint."""
    config = small_set.settings(root, **changes)
    stages = plan.build_stages(config)
    path = workdir / 'prepare/manifest.json'
    before = path.stat().st_mtime_ns if path.exists() else 0
    is_new = not path.exists() or bool(shards(workdir)) and _would_run(config, workdir, stages)
    run_stage(stages['prepare'], config, workdir, stages, redo)
    assert not is_new or path.stat().st_mtime_ns > before
    return is_new, json.loads(path.read_text())['fingerprint']


def _would_run(config, workdir, stages):
    return 'prepare' in [stage.name for stage in plan._pending_stages(config, workdir, ['prepare'])]


def shards(workdir):
    """Return the time of every shard: a shard that is written again has another one."""
    return {
        p.name: p.stat().st_mtime_ns for p in (workdir / 'prepare/records').glob('*.array_record')
    }


def test_another_place_and_other_times_change_nothing(root, tmp_path):
    workdir = tmp_path / 'run'
    first = prepare(root, workdir)
    assert first[0]
    before = shards(workdir)
    assert prepare(f'{root}/', workdir) == (False, first[1])
    copy = tmp_path / 'another mount'
    shutil.copytree(root, copy, copy_function=shutil.copyfile)  # with times of today
    for path in copy.rglob('*'):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    shutil.rmtree(root)
    assert prepare(copy, workdir) == (False, first[1])
    assert shards(workdir) == before
    recorded = json.loads((workdir / 'prepare/sources.json').read_text())
    assert recorded['videos/v0'][1] == 10**18
    settings = json.loads((workdir / 'prepare/manifest.json').read_text())['settings']
    assert settings['data.root'] == str(copy)


def test_a_changed_video_is_named_and_only_its_shard_is_made_again(root, media, tmp_path, caplog):
    workdir = tmp_path / 'run'
    _, first = prepare(root, workdir)
    before = shards(workdir)
    video = root / 'videos/v0.mp4'
    original = video.read_bytes()
    changed = bytearray(original)
    changed[changed.index(b'mdat') + 40] ^= 1  # the same size
    video.write_bytes(changed)
    config = small_set.settings(root)
    text = status.table(config, workdir, plan.build_stages(config))
    assert 'files have changed: videos/v0 has other content' in text
    is_new, second = prepare(root, workdir)
    assert is_new and second != first
    assert 'files have changed since it was made: videos/v0 has other content' in caplog.text
    after = shards(workdir)
    assert [name for name in before if before[name] != after[name]] == [min(before)]

    video.write_bytes(original)
    assert prepare(root, workdir) == (True, first)  # so that what was trained on it returns

    media.write(root / 'videos/v5.mp4', media.Picture(seconds=7, fps=5), media.Sound(seconds=7))
    assert prepare(root, workdir)[0]
    assert 'videos/v5 has' in caplog.text and 'bytes and had' in caplog.text


def test_changed_annotations_and_videos_that_come_late(root, tmp_path, caplog):
    workdir = tmp_path / 'run'
    late = tmp_path / 'v3.mp4'
    (root / 'videos/v3.mp4').rename(late)
    _, first = prepare(root, workdir, max_broken_share=0.5)
    assert prepare(root, workdir, max_broken_share=0.5) == (False, first)
    late.rename(root / 'videos/v3.mp4')
    is_new, second = prepare(root, workdir, max_broken_share=0.5)
    assert is_new and second != first and 'videos/v3 is new' in caplog.text
    path = root / 'avqa-train.json'
    path.write_text(path.read_text().replace('yes', 'no'))
    is_new, third = prepare(root, workdir)
    assert is_new and third not in (first, second)
    assert 'annotations/train has' in caplog.text


def test_records_stay_when_their_videos_are_gone(root, tmp_path, caplog):
    workdir = tmp_path / 'run'
    _, first = prepare(root, workdir)
    before = shards(workdir)
    shutil.rmtree(root / 'videos')
    assert prepare(root, workdir) == (False, first)
    assert shards(workdir) == before
    assert '6 of the files that it was made from are gone (videos/v0' in caplog.text


@pytest.mark.parametrize('changes', [dict(redo=['prepare']), dict(image_size=32)])
def test_records_that_could_not_be_made_again_are_not_replaced(root, tmp_path, changes):
    workdir = tmp_path / 'run'
    _, first = prepare(root, workdir)
    before = shards(workdir)
    shutil.rmtree(root / 'videos')
    with pytest.raises(StageError, match=r'6 of the 9 files that .* are gone \(videos/v0, '):
        prepare(root, workdir, **changes)
    assert shards(workdir) == before
    assert prepare(root, workdir) == (False, first)


def test_redo_reads_everything_again_and_changes_nothing_after_it(root, tmp_path):
    workdir = tmp_path / 'run'
    _, first = prepare(root, workdir)
    before = shards(workdir)
    assert prepare(root, workdir, redo=['prepare'])[1] == first
    after = shards(workdir)
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())


def make_format_1(workdir):
    """Leave what version 1 left: no sources.json, and another manifest."""
    folder = workdir / 'prepare'
    (folder / 'sources.json').unlink()
    manifest = json.loads((folder / 'manifest.json').read_text())
    old = {name: manifest[name] for name in ('stage', 'settings', 'summary')}
    fingerprint = format_1.fingerprint('prepare', manifest['settings'], {})
    old |= {'format': 1, 'fingerprint': fingerprint}
    (folder / 'manifest.json').write_text(json.dumps(old))


def adopt(root, workdir):
    config = small_set.settings(root)
    results.adopt(config, workdir, plan.build_stages(config))


def test_records_of_format_1_move_with_their_data_set(root, tmp_path):
    workdir = tmp_path / 'run'
    _, first = prepare(root, workdir)
    before = shards(workdir)
    make_format_1(workdir)
    moved = tmp_path / 'other mount'
    root.rename(moved)
    adopt(moved, workdir)
    assert prepare(moved, workdir) == (False, first)
    assert shards(workdir) == before


def test_records_of_format_1_are_not_taken_for_those_of_another_data_set(root, media, tmp_path):
    workdir = tmp_path / 'run'
    prepare(root, workdir)
    make_format_1(workdir)
    other = tmp_path / 'other'
    small_set.write_small_set(other, media, 3)
    shutil.rmtree(root)
    adopt(other, workdir)
    assert prepare(other, workdir)[0]
    videos = json.loads((workdir / 'prepare/videos.json').read_text())
    assert len(videos) == 3


def write_truth(root, **changes):
    """Write truth/ID.json and truth/ID.flac of the six videos: a violin that always plays."""
    (root / 'truth').mkdir(exist_ok=True)
    performer = {'heard_instrument': 'violin', 'channel': 0, 'intervals': [[0.0, 6.0]]}
    truth = {'seconds': 6.0, 'tempo': [[0.0, 110]], 'performers': [performer | changes]}
    for name in map('v{}'.format, range(6)):
        (root / f'truth/{name}.json').write_text(json.dumps(truth))
        soundfile.write(root / f'truth/{name}.flac', np.full((60_000, 1), 0.5), 10_000)


def with_truth(root):
    config = small_set.settings(root)
    config.rhythm.tracker, config.sources.stems = 'tempo', 'truth'
    return config


def annotated(root, workdir):
    """Run the stages up to pretrain, without training; return those that left another result."""
    config = with_truth(root)
    stages = plan.build_stages(config)
    ran = []

    def learn(config, folder, inputs):
        (folder / 'model').write_text('trained')
        return {}

    chosen = [
        stages['prepare'],
        stages['annotate'],
        dataclasses.replace(stages['rois'], run=learn),
        dataclasses.replace(stages['pretrain'], run=learn),
    ]
    for stage in chosen:
        path = stage.path(workdir) / 'manifest.json'
        before = path.read_text() if path.exists() else ''
        run_stage(stage, config, workdir, stages)
        if path.read_text() != before:
            ran.append(stage.name)
    return ran


def test_a_changed_truth_makes_what_was_made_from_it_again(root, tmp_path):
    workdir, violin, piano = tmp_path / 'run', {}, {'heard_instrument': 'piano'}
    write_truth(root, **violin)
    assert annotated(root, workdir) == ['prepare', 'annotate', 'rois', 'pretrain']
    first = np.load(workdir / 'annotate/sources.npy')
    assert annotated(root, workdir) == []
    write_truth(root, **piano)
    config = with_truth(root)
    text = status.table(config, workdir, plan.build_stages(config))
    assert text.count("the data set's truth/* have changed") == 2  # annotate, and so pretrain
    assert text.count("the data set's truth/*.json have changed") == 1
    assert annotated(root, workdir) == ['annotate', 'rois', 'pretrain']
    assert (np.load(workdir / 'annotate/sources.npy') != first).any()
    write_truth(root, **violin)
    assert annotated(root, workdir) == ['annotate', 'rois', 'pretrain']  # found again
    np.testing.assert_array_equal(np.load(workdir / 'annotate/sources.npy'), first)
    kept = {path.name.partition('.')[0] for path in workdir.iterdir() if '.' in path.name[1:]}
    assert kept == {'annotate', 'rois', 'pretrain'}


def test_stems_alone_concern_only_the_labels_and_a_lost_truth_nothing(root, tmp_path):
    workdir = tmp_path / 'run'
    write_truth(root)
    annotated(root, workdir)
    soundfile.write(root / 'truth/v0.flac', np.zeros((60_000, 1)), 10_000)
    assert annotated(root, workdir) == ['annotate', 'pretrain']
    for path in (root / 'truth').iterdir():  # the same content at another time
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert annotated(root, workdir) == []
    shutil.rmtree(root / 'truth')
    assert annotated(root, workdir) == []
