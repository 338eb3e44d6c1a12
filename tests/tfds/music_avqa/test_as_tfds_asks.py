"""TFDS's own test of builders, and its command `build`. Only these two need TensorFlow."""

import subprocess
import sys

import pytest

from tests.paths import ROOT

for _name in ('tensorflow', 'dill', 'tensorflow_datasets'):
    pytest.importorskip(_name, reason=f"TFDS's test of builders needs {_name}")

import tensorflow_datasets as tfds  # noqa: E402

from amuse_jax.tfds.music_avqa import music_avqa_dataset_builder as builders  # noqa: E402


def test_the_command_builds_it(prepared, tmp_path):
    for name in ('apache_beam', 'mlcroissant'):
        pytest.importorskip(name, reason=f"TFDS's command needs {name}")
    command = [
        sys.executable, '-m', 'tensorflow_datasets.scripts.cli.main', 'build',
        ROOT / 'amuse_jax/tfds/music_avqa', '--config=v1', f'--manual_dir={prepared["v1"]}',
        f'--data_dir={tmp_path}', '--file_format=array_record',
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    source = tfds.data_source('music_avqa/v1', data_dir=tmp_path, split='train')
    assert len(source) == 3 and source[0]['frames'].shape == (10, 192, 192, 3)


class _Conforms:
    """Base class: TFDS builds from small records in its default format and reads with tf.data."""

    DATASET_CLASS = builders.Builder
    SPLITS = {'train': 3, 'val': 2, 'test': 2}

    @pytest.fixture(autouse=True)
    def records(self, prepared):
        type(self).EXAMPLE_DIR = prepared[self.BUILDER_CONFIG_NAMES_TO_TEST[0]]


class V1Test(_Conforms, tfds.testing.DatasetBuilderTestCase):
    BUILDER_CONFIG_NAMES_TO_TEST = ['v1']


class V2Test(_Conforms, tfds.testing.DatasetBuilderTestCase):
    BUILDER_CONFIG_NAMES_TO_TEST = ['v2']


class SyntheticTest(_Conforms, tfds.testing.DatasetBuilderTestCase):
    BUILDER_CONFIG_NAMES_TO_TEST = ['synthetic']
