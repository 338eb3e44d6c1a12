"""Quick compilation, skipped tests where there is no GPU, and slow tests that take turns."""

import datetime
import os
import zlib

import pytest

from amuse_jax.system import environment

environment.ignore_matplotlib()  # as every command does: a notebook's would stop the import
# Tests compile more than they compute: XLA optimises little here.
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_backend_optimization_level=0'
os.environ['JAX_DEFAULT_MATMUL_PRECISION'] = 'highest'  # accelerators too multiply in float32
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # several processes share a GPU

THIRDS = 3
SALT = '8073'  # found by trial: with it the thirds take about as long as each other


def third_of(file: str) -> int:
    """Return the third, from 1, that the slow tests of a file are in.

    All tests of a file are in the same third, because they share fixtures. A new file does not
    move any other file to another third.

    Args:
      file: the path from the root of the repository, with forward slashes.
    """
    return 1 + zlib.crc32(f'{SALT}{file}'.encode()) % THIRDS


def third_on(day: datetime.date) -> int:
    """Return the third whose turn it is on a day."""
    return 1 + day.toordinal() % THIRDS


def pytest_addoption(parser):
    parser.addoption(
        '--third',
        choices=[*(str(third + 1) for third in range(THIRDS)), 'auto'],
        help='of the slow tests, run only this third; auto: the one whose turn it is today',
    )


def pytest_configure(config):
    """Choose the third in the main process alone: its workers may start after midnight."""
    if hasattr(config, 'workerinput'):
        config.option.third = config.workerinput['third']
    elif config.option.third:
        reason = 'by --third'
        if config.option.third == 'auto':
            today = datetime.date.today()
            config.option.third, reason = str(third_on(today)), f'by the date {today}'
        third = config.option.third
        print(
            f'slow tests {third} of {THIRDS} ({reason}): python -m pytest -m slow --third={third}'
        )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput['third'] = node.config.option.third


def pytest_collection_modifyitems(config, items):
    if not config.option.third:
        return
    others = [
        item
        for item in items
        if item.get_closest_marker('slow')
        and str(third_of(item.path.relative_to(config.rootpath).as_posix())) != config.option.third
    ]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def pytest_runtest_setup(item):
    """Skip a test that needs a GPU where there is none. Only such a test starts JAX here."""
    if item.get_closest_marker('gpu'):
        import jax

        if jax.default_backend() != 'gpu':
            pytest.skip(f'needs an NVIDIA GPU; JAX runs on {jax.devices()[0].device_kind}')


def pytest_sessionfinish(session, exitstatus):
    """A third without tests is no failure."""
    if session.config.option.third and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
