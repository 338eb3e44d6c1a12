"""Folders that tests refer to."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # the repository
SHARED = ROOT.parent / 'shared'  # real annotation files and key lists; most clones lack it
