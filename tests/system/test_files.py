import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.system import files


@pytest.fixture
def synced(monkeypatch):
    """Paths that were synchronised with the disk, in order."""
    paths, fsync = [], os.fsync

    def record(descriptor):
        paths.append(os.readlink(f'/proc/self/fd/{descriptor}'))
        fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', record)
    return paths


def test_a_written_file_and_its_folder_are_on_the_disk(tmp_path, synced):
    files.write_json(tmp_path / 'new/table.json', [1])
    file, folder = synced
    assert os.path.basename(file).startswith('.tmp-') and file.endswith('-table.json')
    assert folder == str(tmp_path / 'new')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['table.json']


def test_a_renamed_folder_is_on_the_disk_in_both_parents(tmp_path, synced):
    (tmp_path / 'a/train').mkdir(parents=True)
    (tmp_path / 'b').mkdir()
    files.rename(tmp_path / 'a/train', tmp_path / 'b/train')
    assert set(synced) == {str(tmp_path / 'a'), str(tmp_path / 'b')}
    assert (tmp_path / 'b/train').is_dir() and not (tmp_path / 'a/train').exists()


def test_a_writer_that_fails_leaves_the_earlier_file(tmp_path):
    path = tmp_path / 'table.json'
    files.write_json(path, [1])
    with pytest.raises(TypeError):
        files.write_json(path, object())

    def half(temporary):
        temporary.write_text('[')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, half)
    assert path.read_text() == '[\n 1\n]\n' and len(list(tmp_path.iterdir())) == 1


def test_json_has_no_nan(tmp_path):
    value = {'a': [1.5, math.nan, (math.inf, 2)], 'b': np.float64('nan'), 'c': {'d': -math.inf}}
    files.write_json(tmp_path / 'a.json', value)
    found = json.loads((tmp_path / 'a.json').read_text(), parse_constant=pytest.fail)
    assert found == {'a': [1.5, None, [None, 2]], 'b': None, 'c': {'d': None}}


def test_a_file_from_outside_is_read_within_limits(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(b'123')
    assert files.read_bytes(path, 3, 60) == b'123'
    with pytest.raises(OSError, match='it has more than 2 bytes'):
        files.read_bytes(path, 2, 60)
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / 'b', 2, 60)
    os.mkfifo(tmp_path / 'pipe')  # nobody writes to it
    for other in (tmp_path, tmp_path / 'pipe', Path('/dev/zero')):
        with pytest.raises(OSError, match='it is a folder, a pipe or a device'):
            files.read_bytes(other, 2, 60)
