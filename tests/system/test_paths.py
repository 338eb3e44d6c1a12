import os
import subprocess
import sys
from pathlib import Path

import pytest

from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from amuse_jax.run import settings
from amuse_jax.system import paths
from tests.paths import ROOT


def test_home_folders_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert paths.from_user('~/runs/v1/', '--workdir') == tmp_path / 'runs/v1'
    assert paths.from_user('~', '--workdir') == tmp_path
    assert paths.from_user('a/~/b', '--workdir') == Path('a/~/b')
    with pytest.raises(StageError, match="--workdir is '~nobody-here/x', and the home folder"):
        paths.from_user('~nobody-here/x', '--workdir')


@pytest.mark.parametrize('address', ['gs://bucket/run', 's3://bucket', 'gs:/bucket/run', 'hdfs:/x'])
def test_addresses_are_refused(address):
    with pytest.raises(StageError, match='expected a folder or file of this machine'):
        paths.from_user(address, '--workdir')


def test_every_path_in_the_settings_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    config = default_config()
    config.data.update(root='~/data/', rephrased='~/R')
    config.evaluate.data.update(root='~/other/')
    config.rois.weights = '~/w.pt'
    config.sources.weights = '~/uss/'
    config.checkpoints.update(visual='timm/swin.ms_in22k', audio='~/audio.ckpt', text='~/bert/')
    config.model.text.tokenizer = '~/vocab.txt'
    settings.expand_paths(config)
    home = str(tmp_path)
    assert (config.data.root, config.data.rephrased) == (f'{home}/data', f'{home}/R')
    assert config.evaluate.data.root == f'{home}/other' and config.evaluate.data.rephrased == ''
    assert (config.rois.weights, config.sources.weights) == (f'{home}/w.pt', f'{home}/uss')
    assert config.checkpoints.visual == 'timm/swin.ms_in22k'
    assert (config.checkpoints.audio, config.checkpoints.text) == (
        f'{home}/audio.ckpt', f'{home}/bert',
    )  # fmt: skip
    assert config.model.text.tokenizer == f'{home}/vocab.txt'
    config.data.root = 'gs://bucket/data'
    with pytest.raises(StageError, match=r"config\.data\.root is 'gs://bucket/data'"):
        settings.expand_paths(config)


@pytest.mark.parametrize(
    ('command', 'expected'),
    [
        (['music_avqa', 'check', '--root=~/set/'], 'expected it in {home}/set as data/'),
        (
            ['pretrained', 'tag', '--source=~/w.ckpt', '--audio=~/a.wav'],
            '~/a.wav: the file is not',
        ),
        (
            ['evaluation', 'seeds', '~/run', '~/run', '--out=~/out'],
            '{home}/run has no finished evaluate',
        ),
    ],
)
def test_commands_look_into_the_home_folder_and_make_none_called_tilde(tmp_path, command, expected):
    (tmp_path / 'home/set').mkdir(parents=True)
    (tmp_path / 'home/a.wav').write_text('no sound')
    environment = os.environ | {'HOME': str(tmp_path / 'home'), 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-m', f'amuse_jax.{command[0]}', *command[1:]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert expected.format(home=tmp_path / 'home') in last
    assert [path.name for path in tmp_path.iterdir()] == ['home']


def test_a_rendered_data_set_goes_into_the_home_folder(tmp_path):
    environment = os.environ | {'HOME': str(tmp_path / 'home'), 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, '-m', 'amuse_jax.synthetic', '--out=~/set', '--videos=3', '--width=64',
         '--height=36', '--fps=1', '--questions_per_video=1', '--workers=1'],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / 'home/set/videos').iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ['home']
