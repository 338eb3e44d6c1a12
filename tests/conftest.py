"""Quick compilation, skipped tests where there is no GPU, and slow tests that take turns."""

import datetime
import gc
import os
import shutil
import tempfile
import zlib

import pytest

from amuse_jax.system import environment

environment.ignore_matplotlib()  # as every command does: a notebook's would stop the import
# JAX's traces are millions of objects, most of which stay: looking at all of them for garbage took
# a tenth of the tests' time.
gc.set_threshold(100_000, 50, 50)
# Tests compile more than they compute: XLA optimises little here.
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_backend_optimization_level=0'
os.environ['JAX_DEFAULT_MATMUL_PRECISION'] = 'highest'  # accelerators too multiply in float32
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # several processes share a GPU

SHARES = 6
SALT = '6810'  # found by trial: with it the shares take about as long as each other


def share_of(file: str) -> int:
    """Return the share, from 1, that the slow tests of a file are in.

    All tests of a file are in the same share, because they share fixtures. A new file does not
    move any other file to another share.

    Args:
      file: the path from the root of the repository, with forward slashes.
    """
    return 1 + zlib.crc32(f'{SALT}{file}'.encode()) % SHARES


def share_on(day: datetime.date) -> int:
    """Return the share whose turn it is on a day."""
    return 1 + day.toordinal() % SHARES


def pytest_addoption(parser):
    parser.addoption(
        '--share',
        choices=[*(str(share + 1) for share in range(SHARES)), 'auto'],
        help='of the slow tests, run only this share; auto: the one whose turn it is today',
    )


def pytest_configure(config):
    """Prepare in the main process what its workers, and the processes of their tests, share."""
    if hasattr(config, 'workerinput'):
        config.option.share = config.workerinput['share']
        return
    _share_compiled_programs(config)
    if config.option.share:  # workers may start after midnight
        reason = 'by --share'
        if config.option.share == 'auto':
            today = datetime.date.today()
            config.option.share, reason = str(share_on(today)), f'by the date {today}'
        share = config.option.share
        print(
            f'slow tests {share} of {SHARES} ({reason}): python -m pytest -m slow --share={share}'
        )


def _share_compiled_programs(config):
    """Compile each program once for all tests; JAX_COMPILATION_CACHE_DIR can name a lasting folder.

    JAX reads the variables when it is imported, which is later.
    """
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        folder = tempfile.mkdtemp(prefix='compiled-by-tests-')
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput['share'] = node.config.option.share


def pytest_collection_modifyitems(config, items):
    if not config.option.share:
        return
    others = [
        item
        for item in items
        if item.get_closest_marker('slow')
        and str(share_of(item.path.relative_to(config.rootpath).as_posix())) != config.option.share
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
    """A share without tests is no failure."""
    if session.config.option.share and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
