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
            'ask needs the stage prepare, which is not finished',
        ),
        (
            ['--config=configs/demo.py', '--config.train.batch_size=-1'],
            'config.train.batch_size is -1; expected a positive number',
        ),
        (
            ['--config=configs/demo.py', '--config.evaluate.examples=-1'],
            'config.evaluate.examples is -1; expected 0 or a positive number',
        ),
        (
            ['--config=configs/demo.py', '--redo=sing'],
            '--redo names sing; expected stages that run: render, prepare',
        ),
        (
            ['--config=configs/demo.py', '--stages=train', '--redo=rois'],
            '--redo names rois; expected stages that run: train',
        ),
        (
            ['--config=configs/v1.py', '--config.data.root=gs://bucket/data'],
            "config.data.root is 'gs://bucket/data'; expected a folder or file of this machine",
        ),
        (
            ['--config=configs/demo.py', '--stages=ask', '--video=s3://b/x.mp4', '--question=Why?'],
            "--video is 's3://b/x.mp4'; expected",
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


def in_folder(folder, *arguments):
    """Run the command in another folder."""
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'HOME': str(folder / 'home')}
    command = [sys.executable, '-m', 'amuse_jax.main', *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    ('workdir', 'sentence'),
    [
        ('gs://bucket/run', "--workdir is 'gs://bucket/run'; expected a folder or file of this"),
        ('notes.txt', 'notes.txt is a file; expected a folder'),
        ('notes.txt/run', 'notes.txt is a file; expected a folder'),
        ('~nobody-here/run', 'and the home folder of its user is unknown'),
    ],
)
def test_a_workdir_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path, workdir, sentence
):
    (tmp_path / 'notes.txt').write_text('notes')
    result = in_folder(tmp_path, f'--config={ROOT}/configs/demo.py', f'--workdir={workdir}')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert sentence in result.stderr.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_the_status_of_a_workdir_in_the_home_folder(tmp_path):
    result = in_folder(
        tmp_path, f'--config={ROOT}/configs/demo.py', '--stages=status', '--workdir=~/runs/demo/'
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f'{tmp_path}/home/runs/demo'
    assert [line.split()[-1] for line in lines[2:]] == ['missing'] * 7
    assert not (tmp_path / 'home/runs').exists() and not (tmp_path / '~').exists()


def test_a_package_configs_of_ones_own_is_no_obstacle(tmp_path):
    mine = tmp_path / 'configs'
    mine.mkdir()
    (mine / '__init__.py').write_text('raise ImportError("not the one")\n')
    (mine / 'demo.py').write_text((ROOT / 'configs/demo.py').read_text())
    result = in_folder(tmp_path, '--config=configs/demo.py', '--stages=status')
    assert result.returncode == 0, result.stderr
    result = in_folder(tmp_path, f'--config={ROOT}/configs/v2.py', '--stages=status')
    assert result.returncode == 0, result.stderr


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
