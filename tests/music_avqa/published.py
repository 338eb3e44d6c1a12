"""Finds MUSIC-AVQA's published annotation files, which are not part of this project."""

from pathlib import Path

import pytest

from tests.paths import SHARED

FOLDER = SHARED / 'data/music_avqa'


def path(name: str) -> Path:
    """Return the path of a published file, such as 'v2_test_bias'; skip the test without it."""
    found = FOLDER / f'{name}.json'
    if not found.exists():
        pytest.skip(f'{found} is not here')
    return found
