import os

import pytest

from amuse_jax.system import contents, files


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


def test_contents_of_files_and_folders(tmp_path):
    file, folder = tmp_path / 'file', tmp_path / 'folder'
    assert contents.measure(file) is None and contents.measure(folder) is None
    file.write_bytes(b'abc')
    first = contents.measure(file)
    assert first[0] == 3 and first[2].startswith('ba7816bf8f01cfea')  # SHA-256 of abc
    assert contents.measure(file, [*first[:2], 'known']) == [*first[:2], 'known']
    file.write_bytes(b'abd')
    assert contents.measure(file, first)[2] != first[2]
    os.mkfifo(tmp_path / 'pipe')
    assert contents.measure(tmp_path / 'pipe') is None  # without waiting for a writer
    (folder / 'inner').mkdir(parents=True)
    assert contents.measure(folder) is None  # it has no content
    (folder / 'inner/x').write_bytes(b'abc')
    with_x = contents.measure(folder)
    (folder / 'inner/x').rename(folder / 'inner/y')
    assert contents.measure(folder)[2] != with_x[2]
