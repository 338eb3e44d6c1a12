import os

from amuse_jax.system import contents


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
    assert contents.measure(folder, pattern='*.json') is None
    (folder / 'z.json').write_bytes(b'abc')
    (folder / 'inner/y').write_bytes(b'abcd')
    assert contents.measure(folder, pattern='*.json')[0] == 3
