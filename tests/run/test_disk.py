"""Sizes of the stages' files at the paper's size; a run too large for the disk never begins."""

import collections
import json
import shutil

import pytest

from amuse_jax import music_avqa
from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from amuse_jax.evaluation import other_data
from amuse_jax.run import disk, plan
from amuse_jax.run.stage import write_manifest
from configs import demo, v1

GB = 1e9


def set_free_space(monkeypatch, size):
    usage = collections.namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(0, 0, size))


@pytest.mark.parametrize('videos', [9288, 10518])
def test_sizes_that_grow_with_the_videos(videos):
    config = v1.get_config()
    segment = 192 * 192 * 3 + 601 * 64 * 2
    assert disk.record_bytes(config, videos) == videos * 10 * segment
    assert disk.region_bytes(config, videos) == 2 * videos * 10 * 12 * (8 + 2 + 2 + 448 * 2)
    features = disk.pretrain_bytes(config, videos) - disk.pretrain_bytes(config, 0)
    assert features == videos * 10 * (2 * (2 * (1536 + 768) + 1 + 22) + 1)
    tokens = disk.train_bytes(config, videos) - disk.train_bytes(config, 0)
    assert tokens == videos * 10 * 2 * (12 * 12 * 768 + 16 * 16 * 384)  # bfloat16
    config.model.dtype = 'float32'
    assert disk.train_bytes(config, videos) - disk.train_bytes(config, 0) == 2 * tokens
    config.train.trainable = '.'
    assert disk.train_bytes(config, videos) == disk.train_bytes(config, 0)


def test_checkpoints_at_the_papers_size():
    """There are three checkpoints, each with parameters and two moments of 2 * 223 million."""
    config = v1.get_config()
    assert disk.pretrain_bytes(config, 0) == pytest.approx((3 * 12 + 8) * 2 * 0.223 * GB, rel=0.01)
    config.without = 'encoder'
    assert disk.train_bytes(config, 9288) == pytest.approx((3 * 12 + 8) * 0.109 * GB, rel=0.01)


def test_arrays_of_features_and_the_largest_shards_beside_them():
    config = v1.get_config()
    assert disk.array_bytes(config, 9288) == 0
    config.features.arrays = 'resnet18', 'vggish'
    maps, vectors = 2 * 10 * 14 * 14 * 512, 2 * 60 * 128
    assert disk.array_bytes(config, 9288) == 9288 * (2 * maps + vectors + 60)
    config.features.arrays = ('clip_patches',)
    assert disk.array_bytes(config, 9288) == pytest.approx(2 * 9288 * 3.01e6, rel=0.01)
    config.features.arrays = ('ast',)
    assert disk.array_bytes(config, 9288) == pytest.approx(2 * 101 * GB, rel=0.01)


def test_words_are_counted_for_each_different_question(tmp_path):
    write_annotations(tmp_path / 'set', {split: [('a', None)] for split in music_avqa.SPLITS})
    config = default_config()
    config.data.root = str(tmp_path / 'set')
    config.features.arrays = ('clip_words',)
    assert disk.array_bytes(config, 1) == 2 * (2 * 77 * 512) + 60  # three rows with one text
    rendered = demo.get_config()
    rendered.features.arrays = ('clip_words',)
    questions = 10 * rendered.synthetic.questions_per_video
    assert disk.array_bytes(rendered, 10) == 2 * (questions * 2 * 77 * 512) + 600


def write_annotations(root, videos):
    root.mkdir()
    for split, names in videos.items():
        rows = [
            {
                'video_id': name,
                'type': '["Audio", "Counting"]',
                'question_content': 'Is there a <Object> sound?',
                'templ_values': '["violin"]',
                'anser': 'yes',
            }
            | ({'unmatch_audio': sound} if sound else {})
            for name, sound in names
        ]
        (root / f'avqa-{split}.json').write_text(json.dumps(rows))


def test_records_are_counted_from_the_annotations(tmp_path):
    write_annotations(
        tmp_path / 'set',
        {
            'train': [('a', None), ('b', None)],
            'val': [('a', None), ('a', 'b')],
            'test': [('c', None)],
        },
    )
    config = default_config()
    config.data.root = str(tmp_path / 'set')
    prepare = [plan.build_stages(config)['prepare']]
    remaining = disk.remaining_bytes(config, tmp_path, prepare, ())
    assert remaining == {tmp_path / 'prepare': disk.record_bytes(config, 4)}


def test_a_run_too_large_for_the_disk_does_not_begin(tmp_path, monkeypatch):
    set_free_space(monkeypatch, 10**6)
    config = demo.get_config()
    with pytest.raises(StageError, match=r'up to .* GB in .*prepare 0\.\d+, rois .*train'):
        plan.run(config, tmp_path, [])
    with pytest.raises(StageError, match=r'train-without-rois'):
        plan.run(config, tmp_path, ['ablations'])
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_not_counted_again(tmp_path):
    config = demo.get_config()
    prepare = [plan.build_stages(config)['prepare']]
    (needed,) = disk.remaining_bytes(config, tmp_path, prepare, ()).values()
    half = tmp_path / 'prepare' / 'records' / '00000-of-00002.array_record'
    half.parent.mkdir(parents=True)
    half.write_bytes(b'x' * 4096 * 100)
    with open(tmp_path / 'prepare' / 'sparse', 'wb') as file:
        file.truncate(10**9)
    assert disk.remaining_bytes(config, tmp_path, prepare, ()) == {
        tmp_path / 'prepare': needed - 4096 * 100
    }


def test_what_will_be_set_aside_makes_no_room(tmp_path):
    config = demo.get_config()
    train = [plan.build_stages(config)['train']]
    (needed,) = disk.remaining_bytes(config, tmp_path, train, ()).values()
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/weights').write_bytes(b'x' * 4096 * 100)
    assert list(disk.remaining_bytes(config, tmp_path, train, ()).values()) == [needed]
    (rest,) = disk.remaining_bytes(config, tmp_path, train, ['train']).values()
    assert rest == needed - 4096 * 100


def complete(config, workdir, *names):
    """Write the manifests of finished stages."""
    stages = plan.build_stages(config)
    for name in names:
        write_manifest(stages[name], config, workdir, stages, {})


def test_a_finished_stage_is_not_counted(tmp_path, monkeypatch):
    config = demo.get_config()
    complete(config, tmp_path, 'render', 'prepare')
    set_free_space(monkeypatch, 10**6)
    with pytest.raises(StageError, match=r'GB in .* \(rois 0\.\d+, pretrain '):
        plan.run(config, tmp_path, [])


def test_another_data_set_counts_its_test_videos_only(tmp_path, monkeypatch):
    write_annotations(
        tmp_path / 'other',
        {
            'train': [('a', None)],
            'val': [('b', None)],
            'test': [('c', None), ('c', 'd'), ('c', None)],
        },
    )
    config = demo.get_config()
    config.evaluate.data.root = str(tmp_path / 'other')
    workdir = tmp_path / 'run'
    stages = plan.build_stages(config)
    remaining = disk.remaining_bytes(config, workdir, stages.values(), ())
    other_folder = workdir / other_data.folder_name(config)
    assert remaining[other_folder / 'prepare'] == disk.record_bytes(config, 2)
    assert remaining[other_folder / 'rois'] == disk.region_bytes(config, 2)
    stored = disk.pretrain_bytes(config, 2) - disk.pretrain_bytes(config, 0)
    stored //= 2  # the predictors' features are stored a second time by pretraining alone
    stored += disk.train_bytes(config, 2) - disk.train_bytes(config, 0)
    assert remaining[other_folder / 'features'] == stored
    assert remaining[workdir / 'prepare'] == disk.record_bytes(config, config.synthetic.videos)

    complete(config, workdir, *(name for name in stages if not name.startswith('test_')))
    set_free_space(monkeypatch, 1000)
    name = other_folder.name
    with pytest.raises(StageError, match=rf'GB in .* \({name}/prepare 0\.\d+, {name}/rois 0'):
        plan.run(config, workdir, [])
