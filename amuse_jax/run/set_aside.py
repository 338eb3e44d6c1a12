"""Results that are set aside because the settings have changed, in folders beside the stage's own.

`train` becomes `train.2026-11-27-1`: the day on which it was last written, and a number. Its
`manifest.json` or `started` still says what it was made from, so it is found again.
"""

import re
import shutil
import time
from pathlib import Path

from amuse_jax.system.files import rename
from amuse_jax.system.manifest import MANIFEST

_SUFFIX = re.compile(r'\.(\d{4}-\d{2}-\d{2})-(\d+)')
STARTED = 'started'  # describes an unfinished result, as the manifest a finished one
_RECORDS = (MANIFEST, STARTED)


def folders(folder: Path) -> list[Path]:
    """Return the folders that were set aside for the stage's folder, the newest first."""
    found = []
    for path in folder.parent.glob(f'{folder.name}.*'):
        match = _SUFFIX.fullmatch(path.name.removeprefix(folder.name))
        if match and path.is_dir():
            found.append((match[1], int(match[2]), path))
    return [path for *_, path in sorted(found, reverse=True)]


def all_folders(workdir: Path) -> list[Path]:
    """Return all folders that were set aside in a workdir, also by runs with other configs."""
    paths = [*workdir.glob('*.*'), *workdir.glob('*/*.*')]
    return sorted(
        path for path in paths if re.search(rf'{_SUFFIX.pattern}$', path.name) and has_record(path)
    )


def move(folder: Path) -> Path:
    """Set the stage's folder aside; return its new path. It must hold one of the records."""
    record = next(folder / name for name in _RECORDS if (folder / name).exists())
    day = time.strftime('%Y-%m-%d', time.localtime(record.stat().st_mtime))
    number = 1
    while (aside := folder.with_name(f'{folder.name}.{day}-{number}')).exists():
        number += 1
    rename(folder, aside)
    return aside


def has_record(folder: Path) -> bool:
    """Return whether a folder says what its result was made from."""
    return any((folder / record).is_file() for record in _RECORDS)


def holds_work(folder: Path) -> bool:
    """Return whether a folder holds more than the records with which a stage begins."""
    return folder.is_dir() and any(
        path.name != STARTED and not path.name.startswith('.tmp-') for path in folder.iterdir()
    )


def remove(folder: Path) -> None:
    """Delete a folder so that a kill never leaves half of it under its own name."""
    if folder.exists():
        away = removed_name(folder)
        rename(folder, away)
        shutil.rmtree(away)


def removed_name(folder: Path) -> Path:
    """Return the name under which `remove` deletes a folder; a killed run may leave it."""
    return folder.with_name(f'.old-{folder.name}')


def size(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk, without the holes of sparse files."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob('*') if path.is_file())
