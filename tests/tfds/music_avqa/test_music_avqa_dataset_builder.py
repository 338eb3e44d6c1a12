import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from amuse_jax.data.records import RecordReader
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import vocabulary
from tests.paths import ROOT

tfds = pytest.importorskip('tensorflow_datasets', reason="the extra 'tfds' is not installed")
builders = pytest.importorskip('amuse_jax.tfds.music_avqa.music_avqa_dataset_builder')

ARRAYS = ('frames', 'frame_mask', 'log_mel', 'audio_mask')


def build(name, manual_dir, data_dir):
    builder = builders.Builder(config=name, data_dir=data_dir, file_format='array_record')
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    builder.download_and_prepare(download_config=config)
    return builder


@pytest.mark.parametrize('name', ['v1', 'v2', 'synthetic'])
def test_examples_are_the_records_with_the_questions_of_their_split(name, prepared, tmp_path):
    builder = build(name, prepared[name], tmp_path)
    reader = RecordReader(prepared[name] / 'records')
    rows = json.loads((prepared[name] / 'questions.json').read_text())
    asked = []
    for split in ('train', 'val', 'test'):
        chosen = sorted({row['record'] for row in rows if row['split'] == split})
        source = builder.as_data_source(split)
        assert len(source) == builder.info.splits[split].num_examples == len(chosen)
        for example, index in zip(source, chosen):
            record = reader[index]
            for field in ARRAYS:
                assert example[field].dtype == record[field].dtype
                np.testing.assert_array_equal(example[field], record[field])
            assert example['video_id'].decode() == record['video_id']
            assert example['sound_id'].decode() == record['sound_id']
            assert example['seconds'] == np.float32(record['seconds'])
            questions = example['questions']
            expected = [row for row in rows if (row['record'], row['split']) == (index, split)]
            for field in ('question_id', 'text', 'template'):
                found = [text.decode() for text in questions[field]]
                assert found == [row[field] for row in expected]
            assert [vocabulary.ANSWERS[i] for i in questions['answer']] == ['no'] * len(expected)
            assert {vocabulary.TYPES[i] for i in questions['type']} == {('Audio', 'Counting')}
            asked += [text.decode() for text in questions['question_id']]
    assert sorted(asked) == sorted(row['question_id'] for row in rows)  # every question once


BUILD = """
import sys
import tensorflow_datasets as tfds
from amuse_jax.tfds.music_avqa.music_avqa_dataset_builder import Builder

builder = Builder(config='synthetic', data_dir=sys.argv[2], file_format='array_record')
builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[1])
)
assert 'tensorflow' not in sys.modules
"""
READ = """
import sys
import tensorflow_datasets as tfds
source = tfds.data_source('music_avqa/synthetic', split='train', data_dir=sys.argv[1])
assert len(source) == 3 and source[2]['frames'].shape == (3, 16, 16, 3)
assert [len(each['questions']['text']) for each in source] == [1, 2, 3]
assert 'tensorflow' not in sys.modules and 'amuse_jax' not in sys.modules
"""


def test_building_and_reading_need_no_tensorflow(prepared, tmp_path):
    """Reading needs TFDS alone, not amuse_jax."""
    for code, arguments in ((BUILD, [prepared['synthetic'], tmp_path]), (READ, [tmp_path])):
        command = [sys.executable, '-c', code, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_shards_hold_a_fixed_number_of_examples(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(builders, 'SHARD_EXAMPLES', 2)
    builder = build('synthetic', prepared['synthetic'], tmp_path)
    assert builder.info.splits['train'].shard_lengths == [2, 1]
    source = builder.as_data_source('train')
    assert [source[i]['video_id'] for i in (2, 0)] == [b'syn00000002', b'syn00000000']


@pytest.mark.parametrize(
    ('name', 'other', 'sentence'),
    [
        ('synthetic', 'v1', 'data.annotations=v1, music_avqa/synthetic has plain; give'),
        ('v1', 'synthetic', 'data.annotations=plain, music_avqa/v1 has v1; give'),
        ('v1', 'v2', 'data.annotations=v2-balance, music_avqa/v1 has v1; give'),
        ('v2', 'v1', 'data.annotations=v1, music_avqa/v2 has v2-balance; give'),
    ],
)
def test_records_of_another_data_set_are_refused(name, other, sentence, prepared, tmp_path):
    with pytest.raises(StageError, match=sentence):
        build(name, prepared[other], tmp_path)


def test_an_unfinished_stage_is_refused(prepared, tmp_path):
    folder = shutil.copytree(prepared['v1'], tmp_path / 'prepare')
    (folder / 'manifest.json').unlink()
    with pytest.raises(StageError, match='prepare is not finished in'):
        build('v1', folder, tmp_path)


def test_each_tfds_config_has_a_config_file_of_the_same_name():
    for config in builders.Builder.BUILDER_CONFIGS:
        settings = importlib.import_module(f'configs.{config.name}').get_config()
        assert config.annotations == settings.data.annotations


def test_records_of_another_shape_are_refused(prepared, tmp_path):
    config = builders.MusicAvqaConfig(name='small', frames=(10, 128, 128, 3))
    with pytest.raises(StageError, match=r'frames of shape \(10, 192, 192, 3\), .*128'):
        build(config, prepared['v1'], tmp_path)


def test_a_missing_folder_or_missing_records_are_explained(tmp_path):
    with pytest.raises(AssertionError, match='the folder of amuse_jax.s stage `prepare`'):
        build('v1', tmp_path / 'nowhere', tmp_path)
    (tmp_path / 'started').mkdir()
    (tmp_path / 'started' / 'videos.json').write_text('[]')
    with pytest.raises(StageError, match='holds no records .*run the stage prepare'):
        build('v1', tmp_path / 'started', tmp_path)


def test_the_builder_has_the_documentation_that_tfds_requires(tmp_path):
    info = builders.Builder(config='v2', data_dir=tmp_path).info
    assert 'MUSIC-AVQA asks about' in info.description and 'li2022learning' in info.citation
    assert info.homepage == 'https://gewu-lab.github.io/MUSIC-AVQA/'
    assert str(builders.Builder.VERSION) in builders.Builder.RELEASE_NOTES
    from tensorflow_datasets.core import dataset_metadata

    assert set(builders.Builder.get_metadata().tags) <= set(dataset_metadata.valid_tags())
    questions = info.features['questions'].feature
    assert all(each.doc.desc for each in (*info.features.values(), *questions.values()))
    assert info.features['questions']['answer'].names == list(vocabulary.ANSWERS)
