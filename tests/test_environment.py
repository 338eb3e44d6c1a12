"""Environments that people really have: notebooks, other platforms, other locales.

Every test starts the user's command in a process of its own.
"""

import ast
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.data import small_set
from tests.evaluation.test_seeds import make_run
from tests.media import writing
from tests.paths import ROOT
from tests.training import conftest as small
from tests.training import processes
from tests.training.test_whole_runs import CONFIG, make_workdir

media, tiny = writing.media, small.tiny  # the fixtures

# As Jupyter, Colab and Kaggle export it; the module is not in the environment of the command.
NOTEBOOK = {'MPLBACKEND': 'module://matplotlib_inline.backend_inline'}
ASCII = {'PYTHONIOENCODING': 'ascii'}
# The locale C as it is, without Python's switch to UTF-8.
NO_UTF_8 = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
X64 = {'JAX_ENABLE_X64': '1'}


def run(module, *arguments, encoding='utf-8', **environment):
    command = [sys.executable, '-m', module, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=processes.environment() | environment,
        capture_output=True,
        encoding=encoding,
        timeout=600,
    )


@pytest.mark.parametrize(
    ('module', 'arguments'),
    [
        ('amuse_jax.main', ['--config=configs/demo.py', '--stages=summary']),
        ('amuse_jax.pretrained', ['tag', '--source=gone.ckpt', '--audio=gone.mp4']),
        ('amuse_jax.benchmark', ['--help']),
    ],
)
def test_the_backend_of_a_notebook_does_not_matter(module, arguments):
    done = run(module, *arguments, **NOTEBOOK)
    assert 'Traceback' not in done.stderr and 'backend' not in done.stderr
    if module == 'amuse_jax.main':
        assert done.returncode == 0 and 'GFLOP' in done.stdout


def test_no_variable_of_matplotlib_changes_a_figure(tmp_path):
    """The first run has none of them, the second one has all."""
    runs = [make_run(tmp_path / f'run{seed}', seed) for seed in range(2)]
    (tmp_path / 'matplotlibrc').write_text('backend: none\nfigure.facecolor: red\n')
    variables = NOTEBOOK | {
        'MATPLOTLIBRC': str(tmp_path / 'matplotlibrc'),
        'MPLCONFIGDIR': str(tmp_path / 'no/such/folder'),
    }
    pictures = []
    for name, environment in (('without', {}), ('with', variables)):
        out = tmp_path / name
        done = run('amuse_jax.evaluation', 'seeds', *runs, f'--out={out}', **environment)
        assert done.returncode == 0, done.stderr
        pictures.append((out / 'accuracy.png').read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize('environment', [ASCII, NO_UTF_8, ASCII | NO_UTF_8])
def test_a_terminal_without_a_letter_does_not_end_a_command(tmp_path, environment):
    runs = [make_run(tmp_path / f'run{seed}', seed) for seed in range(2)]
    out = tmp_path / 'out'
    done = run(
        'amuse_jax.evaluation', 'seeds', *runs, f'--out={out}', encoding='ascii', **environment
    )
    assert done.returncode == 0, done.stderr
    assert 'Amuse' in done.stdout and '?' in done.stdout  # in the place of ±
    assert '±' in (out / 'table.txt').read_text('utf-8')


def test_videos_are_rendered_in_a_locale_that_is_not_utf_8(tmp_path):
    sizes = dict(videos=3, width=64, height=36, fps=1, questions_per_video=2)
    done = run(
        'amuse_jax.main',
        '--config=configs/demo.py',
        '--stages=render,prepare',
        '--config.data.workers=2',
        f'--workdir={tmp_path}/run',
        *(f'--config.synthetic.{name}={value}' for name, value in sizes.items()),
        **NO_UTF_8,
        **ASCII,
        **NOTEBOOK,
        **X64,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'run/prepare/manifest.json').exists()


@pytest.fixture(params=['ascii', 'latin-1'])
def locale(request, tmp_path_factory):
    """Return the variables of a locale whose file names are not UTF-8."""
    if request.param == 'ascii':
        return NO_UTF_8
    folder = tmp_path_factory.mktemp('locales')
    command = ['localedef', '-i', 'de_DE', '-f', 'ISO-8859-1', str(folder / 'de_DE.ISO-8859-1')]
    if shutil.which('localedef') is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip('this machine cannot make a Latin-1 locale')
    return NO_UTF_8 | {'LOCPATH': str(folder), 'LC_ALL': 'de_DE.ISO-8859-1'}


def test_names_beyond_ascii_work_in_every_locale(media, tmp_path, locale):
    root, workdir = tmp_path / 'Stücke ♪', tmp_path / 'läufe/é'
    small_set.write_small_set(root, media, 3)
    (root / 'videos/v0.mp4').rename(root / 'videos/Geige ♪.mp4')
    path = root / 'avqa-train.json'
    path.write_text(path.read_text().replace('v0', 'Geige ♪'))
    config = tmp_path / 'größe.py'
    config.write_text(f'from configs.demo import get_config  # in {root}\n', 'utf-8')
    done = run(
        'amuse_jax.main', f'--config={config}', '--stages=prepare', f'--workdir={workdir}',
        f'--config.data.root={root}', '--config.synthetic.videos=0', '--config.data.workers=1',
        encoding='latin-1', **locale,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    videos = small_set.read_json(workdir / 'prepare', 'videos')
    assert [video['video_id'] for video in videos] == ['Geige ♪', 'v1', 'v2']
    settings = small_set.read_json(workdir / 'prepare', 'manifest')['settings']
    assert settings['data.root'] == str(root)
    report = tmp_path / 'Prüfung.json'
    done = run(
        'amuse_jax.music_avqa', 'check', f'--root={root}', '--annotations=plain', '--workers=1',
        '--max_broken_share=0', f'--json={report}', encoding='latin-1', **locale,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'Stücke ♪', 'läufe', 'größe.py', 'Prüfung.json'}


@pytest.mark.parametrize(
    ('arguments', 'environment', 'sentence'),
    [
        (['--workdir=BAD/run'], {}, "--workdir is 'BAD/run', and the name"),
        (['--workdir=BAD/run'], NO_UTF_8, "--workdir is 'BAD/run', and the name"),
        (['--config.data.root=BAD'], {}, "config.data.root is 'BAD', and the name"),
        (['--stages=ask', '--video=BAD', '--question=Why?'], NO_UTF_8, "--video is 'BAD', and"),
        (['--stages=ask', '--video=a.mp4', '--question=BAD'], {}, "--question is 'BAD', which is"),
    ],
)
def test_a_name_that_is_not_utf_8_is_one_sentence(tmp_path, arguments, environment, sentence):
    bad = os.fsdecode(b'vid\xe9o')
    arguments = [word.replace('BAD', bad) for word in [f'--workdir={tmp_path}/run', *arguments]]
    done = run('amuse_jax.main', '--config=configs/demo.py', *arguments, **environment)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert sentence.replace('BAD', ascii(bad).strip("'")) in last and 'UTF-8' in last
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('module', 'arguments'),
    [
        ('amuse_jax.main', ['--config=configs/demo.py', '--stages=summary']),
        ('amuse_jax.main', ['--config=configs/demo.py', '--workdir=WORKDIR']),
        ('amuse_jax.pretrained', ['tag', '--source=gone.ckpt', '--audio=gone.mp4']),
        ('amuse_jax.benchmark', ['--config=configs/demo.py', '--out=WORKDIR']),
    ],
)
@pytest.mark.parametrize('platform', ['cuda', 'metal'])
def test_a_platform_that_is_not_here_is_one_sentence(module, arguments, platform, tmp_path):
    arguments = [word.replace('WORKDIR', str(tmp_path / 'run')) for word in arguments]
    done = run(module, *arguments, JAX_PLATFORMS=platform)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"amuse_jax: JAX cannot start: JAX_PLATFORMS is '{platform}'")
    assert 'unset JAX_PLATFORMS' in last
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('before', ['', 'import jax\n'])
def test_jax_computes_by_its_defaults_also_if_a_config_has_imported_it(before):
    exported = X64 | {
        'JAX_NUMPY_RANK_PROMOTION': 'raise',
        'JAX_NUMPY_DTYPE_PROMOTION': 'strict',
        'JAX_DEFAULT_PRNG_IMPL': 'rbg',
        'JAX_DEFAULT_MATMUL_PRECISION': 'bfloat16',
    }
    code = (
        f'{before}from amuse_jax.system import environment; environment.set_up()\n'
        'import jax, jax.numpy as jnp; assert jnp.ones(1).dtype == jnp.float32\n'
        'assert jnp.asarray(1).dtype == jnp.int32\n'
        'assert (jnp.ones((2, 3)) + jnp.ones(3, jnp.int32)).shape == (2, 3)\n'
        'assert jax.random.PRNGKey(0).shape == (2,)  # threefry\n'
        'assert jax.config.jax_default_matmul_precision is None'
    )
    variables = processes.environment() | exported
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=variables)
    assert done.returncode == 0


@pytest.mark.slow
def test_a_whole_run_in_the_worst_environment(tiny, tmp_path):
    """The same run in a plain environment has the same metrics."""
    _, inputs = tiny
    scores = []
    for name, environment in (('plain', {}), ('worst', X64 | ASCII | NO_UTF_8 | NOTEBOOK)):
        workdir = make_workdir(tmp_path / name, inputs)
        done = run('amuse_jax.main', f'--config={CONFIG}', f'--workdir={workdir}', **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        scores.append(processes.read_metrics(workdir / 'train'))
    for each, other in zip(*scores):
        np.testing.assert_allclose(list(each.values()), list(other.values()), rtol=1e-5)


SOURCES = sorted((ROOT / 'amuse_jax').rglob('*.py'))


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def opens_text_without_encoding(call):
    """Whether a call opens or reads text in the encoding of the locale."""
    named = {word.arg for word in call.keywords}
    if isinstance(call.func, ast.Attribute):
        positional = {'read_text': 0, 'write_text': 1}.get(call.func.attr)
        return positional is not None and 'encoding' not in named and len(call.args) <= positional
    if not isinstance(call.func, ast.Name) or call.func.id != 'open':
        return False
    mode = call.args[1].value if len(call.args) > 1 else 'r'
    return 'b' not in mode and 'encoding' not in named


def test_every_text_file_is_opened_as_utf_8():
    found = [
        f'{path.relative_to(ROOT)}:{call.lineno}'
        for path in SOURCES
        for call in calls(ast.parse(path.read_text('utf-8')))
        if opens_text_without_encoding(call)
    ]
    assert not found, 'name the encoding, such as read_text("utf-8")'


def test_no_module_changes_the_environment_when_it_is_imported():
    """Neither a statement outside functions, nor an import of all modules in one process."""
    for path in SOURCES:
        tree = ast.parse(path.read_text('utf-8'))
        outside = [
            node
            for node in tree.body
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)
        ]
        text = '\n'.join(map(ast.unparse, outside))
        assert 'os.environ' not in text and 'putenv' not in text, path
    code = (
        'import os; before = dict(os.environ)\n'
        'from amuse_jax.run import plan\n'
        'from amuse_jax.regions import shard_task\n'
        'assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=dict(os.environ))
    assert done.returncode == 0
