import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def original_htsat():
    """The module original_htsat.py, which describes the released HTS-AT in PyTorch."""
    path = Path(__file__).with_name('original_htsat.py')
    spec = importlib.util.spec_from_file_location('original_htsat', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
