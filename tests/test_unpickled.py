"""Nothing from outside is unpickled, in any module."""

import ast

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / 'amuse_jax'
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob('*.py'))
PICKLING = ('pickle', '_pickle', 'cloudpickle', 'dill', 'joblib', 'marshal', 'shelve')
RUNNING = ('eval', 'exec', 'compile')

# What these modules use of pickle: the class of PyTorch's error, and a run's own work on its way to
# the machines that do it.
USED = {
    'regions/detector.py': {'UnpicklingError'},
    'pretrained/separation.py': {'UnpicklingError'},
    'system/beam.py': {'dumps', 'loads'},
}


def calls(tree):
    """(the dotted name of what is called, the call)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call, name):
    return next((word.value for word in call.keywords if word.arg == name), None)


def says(value, expected):
    return isinstance(value, ast.Constant) and value.value is expected


def is_plain_load(call):
    """Whether np.load has only a file and a mode, and allow_pickle is left out or False."""
    known = all(word.arg is not None for word in call.keywords) and len(call.args) <= 2
    allowed = keyword(call, 'allow_pickle')
    return known and (allowed is None or says(allowed, False))


def findings(name, source):
    """One sentence for each call or import that could run what a file holds."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module]
        for module in modules:
            is_listed = name in USED and module == 'pickle' and isinstance(node, ast.Import)
            if module.partition('.')[0] in PICKLING and not is_listed:
                found.append(f'{name} imports {module}')
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == 'pickle':
            if node.attr not in USED.get(name, ()):
                found.append(f'{name} uses pickle.{node.attr}')
    for called, call in calls(tree):
        if called in ('np.load', 'numpy.load') and not is_plain_load(call):
            found.append(f'{name} may unpickle in {ast.unparse(call)}')
        if called == 'torch.load' and not says(keyword(call, 'weights_only'), True):
            found.append(f'{name} unpickles in {ast.unparse(call)}')
        if called == 'torch_safe_load' and not says(keyword(call, 'safe_only'), True):
            found.append(f'{name} unpickles in {ast.unparse(call)}')
        if called in RUNNING or called in ('yaml.load', 'yaml.unsafe_load', 'yaml.full_load'):
            found.append(f'{name} runs code in {ast.unparse(call)}')
    return found


@pytest.mark.parametrize('name', MODULES)
def test_nothing_is_unpickled(name):
    assert not findings(name, (PACKAGE / name).read_text())


@pytest.mark.parametrize(
    'source',
    [
        'import pickle',
        'import pickle as p',
        'from pickle import loads',
        'import joblib.numpy_pickle',
        'np.load(path, allow_pickle=True)',
        'np.load(path, allow_pickle=trusted)',
        'np.load(path, None, True)',
        'np.load(path, **options)',
        'torch.load(path)',
        'torch.load(path, weights_only=False)',
        'torch_safe_load(path)',
        'eval(text)',
    ],
)
def test_what_would_be_found(source):
    assert findings('a.py', source)


def test_only_beam_unpickles_and_only_its_own_work():
    assert findings('regions/detector.py', 'import pickle\npickle.loads(data)')
    source = (PACKAGE / 'system/beam.py').read_text()
    (function,) = [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and 'pickle.loads' in ast.unparse(node)
    ]
    assert function == '_make_file'
