"""The option --share of conftest.py, on a small tree of tests with a copy of that file."""

import datetime
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.paths import ROOT

CONFTEST = ROOT / 'tests/conftest.py'
FILE = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize('number', [1, 2])
def test_slow(number):
    pass

def test_fast():
    pass
"""
# Without the plugins that take seconds to load.
SETTINGS = """
[pytest]
addopts = -q -n 2 --dist=loadfile -p no:hypothesispytest -p no:anyio
markers = slow
"""


@pytest.fixture
def run(tmp_path):
    """Run pytest on a tree of so many files; return the first line and the names that passed."""
    (tmp_path / 'tests').mkdir()
    shutil.copy(CONFTEST, tmp_path / 'tests')
    (tmp_path / 'pytest.ini').write_text(SETTINGS)

    def run(files, *arguments):
        for index in range(files):
            (tmp_path / f'tests/test_{index}.py').write_text(FILE)
        command = [sys.executable, '-m', 'pytest', '-rp', *arguments]
        environment = {**os.environ, 'PYTHONPATH': str(ROOT)}  # for conftest.py
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()[0], re.findall('^PASSED (.*)', done.stdout, re.MULTILINE)

    return run


@pytest.fixture
def conftest(pytestconfig):
    return pytestconfig.pluginmanager.get_plugin(str(CONFTEST))


def test_the_shares_are_all_slow_tests_each_once(run):
    _, every = run(14, '-m', 'slow')
    assert len(set(every)) == 28
    shares = []
    for share in '123456':
        first, passed = run(14, '-m', 'slow', f'--share={share}')
        assert (
            first
            == f'slow tests {share} of 6 (by --share): python -m pytest -m slow --share={share}'
        )
        shares.append(passed)
    assert sorted(sum(shares, [])) == sorted(every) and all(shares)
    files = [{name.partition(':')[0] for name in passed} for passed in shares]
    assert sum(map(len, files)) == 14  # none is in two of them


def test_a_share_without_tests_is_no_failure(run):
    passed = [run(1, '-m', 'slow', f'--share={share}')[1] for share in '123456']
    assert sorted(map(len, passed)) == [0, 0, 0, 0, 0, 2]


def test_the_date_chooses_and_fast_tests_take_no_turns(run, conftest):
    first, passed = run(8, '--share=auto')
    found = re.match(r'slow tests (\d) of 6 \(by the date (.*)\): python', first)
    share, date = int(found[1]), datetime.date.fromisoformat(found[2])
    assert conftest.share_on(date) == share
    expected = {f'tests/test_{index}.py::test_fast' for index in range(8)}
    for name in (name.removesuffix('fast') for name in expected.copy()):
        if conftest.share_of(name.partition(':')[0]) == share:
            expected |= {f'{name}slow[1]', f'{name}slow[2]'}
    assert set(passed) == expected


def test_every_share_has_its_day(conftest):
    days = [datetime.date(2026, 12, 30) + datetime.timedelta(days=index) for index in range(7)]
    shares = [conftest.share_on(day) for day in days]
    assert sorted(shares[:6]) == [1, 2, 3, 4, 5, 6] and shares[6] == shares[0]
