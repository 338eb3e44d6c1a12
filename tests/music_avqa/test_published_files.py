import collections
import subprocess

import pytest

from amuse_jax.music_avqa import layout, published_files, vocabulary

REAL = {
    'v1_avqa-val': 'data/json_update/avqa-val.json',
    'v2_test_bias': 'data/bias_set/test_bias.json',
}


def test_the_hash_equals_gits(tmp_path):
    for content in (b'', b'[]\n', b'\x00\xff' * 1000):
        path = tmp_path / 'file'
        path.write_bytes(content)
        command = ['git', 'hash-object', str(path)]
        expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert published_files.git_blob(path) == expected.strip()


def test_the_table_is_consistent():
    names = {n for of in layout.FILES.values() for each in of.values() for n in each}
    known = {*published_files.FILES, *published_files.COPIES}
    assert known == {name for name in names if name.startswith('data/')}
    assert set(published_files.REPHRASED) == set(layout.REPHRASED_FILES)
    files = [*published_files.FILES.values(), *published_files.REPHRASED.values()]
    blobs = [file.blob for file in files] + [published_files.ADDITIONAL_VIDEOS_BLOB]
    assert len(set(blobs)) == len(blobs) and all(len(blob) == 40 for blob in blobs)
    for name, file in published_files.FILES.items():
        assert published_files.name_of(file.blob) == name
        assert file.types is None or len(file.types) == len(vocabulary.TYPES)
        assert file.types is None or sum(file.types) == file.rows
    for scheme, total in (('v1-json', 45867), ('v1', 45624)):
        assert (
            sum(published_files.FILES[name].rows for (name,) in layout.FILES[scheme].values())
            == total
        )


@pytest.mark.parametrize('name', REAL)
def test_real_files_are_the_published_ones(name, real, real_path):
    published = published_files.FILES[REAL[name]]
    assert published_files.git_blob(real_path(name)) == published.blob
    assert len(real(name)) == published.rows
    assert len({question.video_id for question in real(name)}) == published.videos
    types = collections.Counter((question.modality, question.kind) for question in real(name))
    assert tuple(types[kind] for kind in vocabulary.TYPES) == published.types
