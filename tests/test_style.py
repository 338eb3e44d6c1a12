import subprocess
import sys

import pytest

from tests.paths import ROOT


@pytest.mark.parametrize('command', [('check',), ('format', '--check')])
def test_ruff_is_content(command):
    result = subprocess.run(
        [sys.executable, '-m', 'ruff', *command, '.'], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
