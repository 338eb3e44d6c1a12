"""Nothing from outside is unpickled or run as code, in any module.

Ruff's rules in pyproject.toml find pickle and its kin, `eval`, `exec` and unsafe YAML. They do not
look at the arguments that make NumPy and PyTorch unpickle, so this file does.
"""

import ast
import subprocess
import sys

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / 'amuse_jax'
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob('*.py'))


def keyword(call, name):
    return next((word.value for word in call.keywords if word.arg == name), None)


def says(value, expected):
    return isinstance(value, ast.Constant) and value.value is expected


def is_plain_load(call):
    """Whether np.load has only a file and a mode, and allow_pickle is left out or False."""
    known = all(word.arg is not None for word in call.keywords) and len(call.args) <= 2
    allowed = keyword(call, 'allow_pickle')
    return known and (allowed is None or says(allowed, False))


def is_safe(called, call):
    """Whether a call of the function named `called` unpickles nothing."""
    if called in ('np.load', 'numpy.load'):
        return is_plain_load(call)
    if called == 'torch.load':
        return says(keyword(call, 'weights_only'), True)
    if called == 'torch_safe_load':  # of ultralytics
        return says(keyword(call, 'safe_only'), True)
    return called not in ('yaml.full_load', 'compile')


def unsafe_calls(source):
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if not is_safe(ast.unparse(call.func), call)]


@pytest.mark.parametrize('name', MODULES)
def test_no_call_unpickles(name):
    assert not unsafe_calls((PACKAGE / name).read_text())


@pytest.mark.parametrize(
    'source',
    [
        'np.load(path, allow_pickle=True)',
        'np.load(path, allow_pickle=trusted)',
        'np.load(path, None, True)',
        'np.load(path, **options)',
        'torch.load(path)',
        'torch.load(path, weights_only=False)',
        'torch_safe_load(path)',
        'yaml.full_load(text)',
    ],
)
def test_what_would_be_found(source):
    assert unsafe_calls(source)


@pytest.mark.parametrize(
    'source',
    [
        'import pickle',
        'import pickle as p',
        'from pickle import loads',
        'import joblib.numpy_pickle',
        'import dill',
        'eval(input())',
        'exec(input())',
        'import yaml\n\nyaml.load(input(), yaml.Loader)',
        'import pandas\n\npandas.read_pickle(input())',
    ],
)
def test_what_ruff_finds(source):
    command = [sys.executable, '-m', 'ruff', 'check', '--select=S,TID251', '--no-cache']
    command += ['--output-format=concise', '--stdin-filename=amuse_jax/a.py', '-']
    done = subprocess.run(command, input=source, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.startswith('amuse_jax/a.py:'), done.stdout


def test_only_beam_unpickles_and_only_its_own_work():
    source = (PACKAGE / 'system/beam.py').read_text()
    (function,) = [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and 'pickle.loads' in ast.unparse(node)
    ]
    assert function == '_write_file'
