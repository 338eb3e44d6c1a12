import os
import subprocess
import sys

import pytest

from tests.paths import ROOT

CLUSTERS = ('SLURM_', 'OMPI_', 'TPU_')  # prefixes of the variables that --coordinator=auto reads


def run(*arguments):
    command = [sys.executable, '-m', 'amuse_jax.main', *arguments]
    environment = {name: os.environ[name] for name in os.environ if not name.startswith(CLUSTERS)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (
            ['--config=configs/demo.py', '--config.synthetic.videos=0'],
            'no data: config.data.root is empty',
        ),
        (
            ['--config=configs/v1.py', '--config.data.root=tests'],
            'avqa-train.json does not exist in tests',
        ),
        (
            ['--config=configs/demo.py', '--stages=train,sing'],
            '--stages names sing; expected some of render, prepare, annotate',
        ),
        (
            ['--config=configs/demo.py', '--stages=train'],
            'train needs the stage prepare, which is not finished',
        ),
        (['--config=configs/demo.py', '--stages=ask'], 'needs --video=FILE and --question='),
        (
            ['--config=configs/demo.py', '--stages=ask', '--video=x.mp4', '--question=Why?'],
            'no finished rois stage for this config',
        ),
        (
            ['--config=configs/demo.py', '--config.train.batch_size=-1'],
            'config.train.batch_size is -1; expected a positive number',
        ),
        (
            ['--config=configs/demo.py', '--coordinator=auto'],
            '--coordinator=auto --process_id=0 --process_count=1: the processes could not join',
        ),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, arguments, sentence):
    result = run(*arguments, f'--workdir={tmp_path}')
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith('amuse_jax: ')
    assert sentence in last


@pytest.mark.parametrize(
    ('name', 'scheme', 'videos'), [('v1', 'v1', '9,288'), ('v2', 'v2-balance', '10,518')]
)
def test_a_config_without_its_data_says_what_is_needed(name, scheme, videos, tmp_path):
    result = run(f'--config=configs/{name}.py', f'--workdir={tmp_path}')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert not list(tmp_path.iterdir())
    message = result.stderr[result.stderr.index('amuse_jax: no data: ') :]
    assert len(message.splitlines()) <= 24
    assert f'{videos} videos of 60 s' in message
    assert f'python -m amuse_jax.music_avqa check --root=DIR --annotations={scheme}' in message


@pytest.mark.parametrize(
    ('argument', 'sentence'),
    [
        ('--config.train.epoch=3', 'Did you mean "epochs"'),
        ('--config=configs/none.py', 'configs/none.py'),
        ('--config=configs/demo.py:without=drums', 'expected without=encoder'),
        ('--config.train.epochs=many', 'many'),
    ],
)
def test_a_misspelled_setting_is_named(tmp_path, argument, sentence):
    result = run('--config=configs/demo.py', argument, f'--workdir={tmp_path}')
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert sentence in result.stderr


def test_the_training_process_never_imports_torch():
    code = "import sys; from amuse_jax.run import plan; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
