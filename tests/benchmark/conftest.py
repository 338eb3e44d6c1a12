import pytest

from tests.benchmark.small import get_config


@pytest.fixture(scope='session')
def small():
    return get_config().lock()
