"""The console script `amuse`, run as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amuse_jax import cli
from tests.paths import ROOT


def run(*arguments, cwd=ROOT):
    command = [sys.executable, '-c', 'from amuse_jax import cli; cli.main()', *arguments]
    search_path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': search_path},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize('arguments', [(), ('--help',)])
def test_the_help_lists_every_command(arguments):
    done = run(*arguments)
    assert done.returncode == 0 and not done.stderr
    usage, _, *lines = done.stdout.splitlines()
    assert usage == 'usage: amuse COMMAND [ARGUMENTS]'
    assert {line.split()[0]: line.split(maxsplit=1)[1] for line in lines} == {
        name: command.help for name, command in cli.COMMANDS.items()
    }
    assert cli.COMMANDS.keys() >= {
        'demo', 'train', 'ask', 'serve', 'export', 'summary', 'check', 'tag', 'convert',
        'synthetic', 'benchmark',
    }  # fmt: skip


def test_an_unknown_command_is_one_sentence():
    done = run('sing')
    assert done.returncode == 1 and not done.stdout
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith('amuse: sing is unknown; expected one of demo, train, ask')


def test_the_summary_of_a_config_is_printed(tmp_path):
    done = run('summary', str(ROOT / 'configs' / 'demo.py'), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'visual tower' in done.stdout and 'GFLOP' in done.stdout
    assert not list(tmp_path.iterdir())


def test_check_without_a_data_set_is_one_sentence():
    done = run('check')
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence == "amuse_jax: --root is ''; expected the folder of the data set"


def test_a_config_is_found_from_another_folder(tmp_path):
    """`train` reads the config: the sentence is about a value that only this config has."""
    config = tmp_path / 'configs' / 'mine.py'
    config.parent.mkdir()
    config.write_text(
        'from amuse_jax.config import default_config\n'
        'def get_config():\n'
        '    config = default_config()\n'
        "    config.name, config.train.batch_size = 'mine', -7\n"
        '    return config\n'
    )
    other = tmp_path / 'other'
    other.mkdir()
    done = run('train', str(config), cwd=other)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last == 'amuse_jax: config.train.batch_size is -7; expected a positive number'


def test_arguments_after_the_config_are_passed_on(tmp_path):
    config = str(ROOT / 'configs' / 'demo.py')
    done = run('train', config, '--config.train.batch_size=-1', '--workdir=here', cwd=tmp_path)
    assert done.returncode == 1
    assert 'config.train.batch_size is -1' in done.stderr.splitlines()[-1]


def test_the_demo_needs_no_config_in_a_clone(tmp_path):
    for folder in (ROOT, tmp_path):
        done = run('demo', '--config.train.batch_size=-1', f'--workdir={tmp_path}', cwd=folder)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith('amuse_jax: config.train.batch_size is -1')


def test_without_the_demos_config_one_sentence_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, '__file__', str(tmp_path / 'site-packages/amuse_jax/cli.py'))
    with pytest.raises(SystemExit, match='there is no configs/demo.py here; run `amuse demo` in a'):
        cli._find_demo()


def test_ask_is_found_by_its_name():
    done = run('ask', 'model')
    assert done.returncode == 1 and 'expected MODEL VIDEO [QUESTION...]' in done.stderr


def test_a_commands_own_help_names_the_command():
    done = run('seeds', '--help')  # its exit status is absl's: 1
    assert 'USAGE: amuse seeds' in done.stdout and '--out' in done.stdout


def test_the_readmes_install_brings_the_command(tmp_path):
    assert (ROOT / 'requirements.txt').read_text().endswith('\n-e .\n')
    script = Path(sys.executable).with_name('amuse')
    done = subprocess.run([script, '--help'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith('usage: amuse COMMAND')
