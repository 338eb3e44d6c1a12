import concurrent.futures
import pickle

import msgpack
import numpy as np
import pytest

from amuse_jax.data import records
from amuse_jax.errors import NewerFormat, StageError
from amuse_jax.system import formats


def record(index):
    rng = np.random.default_rng(index)
    return {
        'video_id': f'v{index}',
        'seconds': index / 2,
        'frames': rng.integers(0, 255, (2, 4, 4, 3), np.uint8),
        'frame_mask': np.array([True, index % 2 == 0]),
        'log_mel': rng.standard_normal((2, 5, 3)).astype(np.float16),
        'questions': [{'text': 'Is it?', 'values': ['violin', 'left']}],
    }


def write_shards(folder, sizes):
    folder.mkdir(exist_ok=True)
    index = 0
    for number, size in enumerate(sizes):
        writer = records.ShardWriter(folder / f'{number:05d}-of-{len(sizes):05d}.array_record')
        videos = []
        for _ in range(size):
            writer.write(record(index))
            videos.append({'video_id': f'v{index}'})
            index += 1
        writer.close({'videos': videos, 'quarantine': []})
    return folder


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
        else:
            assert found[name] == value


def test_decoding_returns_the_encoded_record():
    assert_same(records.decode(records.encode(record(3))), record(3))


def test_random_access_over_shards(tmp_path):
    reader = records.RecordReader(write_shards(tmp_path, [3, 0, 1, 4]))
    assert len(reader) == 8
    assert [video['video_id'] for video in reader.videos] == [f'v{i}' for i in range(8)]
    for index in (7, 0, 3, 3, 2, -1):
        assert_same(reader[index], record(index % 8))
    with pytest.raises(IndexError):
        reader[8]


def test_threads_and_other_processes_share_a_reader(tmp_path):
    reader = records.RecordReader(write_shards(tmp_path, [3, 2]))
    reader[0]
    reader = pickle.loads(pickle.dumps(reader))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: reader[index % 5]['video_id'], range(40)))
    assert found == [f'v{index % 5}' for index in range(40)]


def test_an_empty_folder(tmp_path):
    with pytest.raises(StageError, match='run the stage prepare'):
        records.RecordReader(tmp_path)


def test_a_missing_shard(tmp_path):
    write_shards(tmp_path, [1, 1, 1])
    (tmp_path / '00001-of-00003.array_record').unlink()
    with pytest.raises(StageError, match='2 of 3 record files'):
        records.RecordReader(tmp_path)


@pytest.mark.parametrize('share', [0.0, 0.3, 0.9, 0.999])
def test_a_half_written_shard(share, tmp_path):
    path = write_shards(tmp_path, [2]) / '00000-of-00001.array_record'
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StageError, match='not a whole record file .*run prepare again'):
        records.RecordReader(tmp_path)


def test_a_file_without_records(tmp_path):
    path = tmp_path / '00000-of-00001.array_record'
    path.write_text('not records\n' * 1000)
    with pytest.raises(StageError, match='not a whole record file'):
        records.RecordReader(tmp_path)


def test_damage_inside_a_shard_is_found_on_reading_the_record(tmp_path):
    path = write_shards(tmp_path, [2]) / '00000-of-00001.array_record'
    data = bytearray(path.read_bytes())
    data[200:210] = b'0123456789'
    path.write_bytes(data)
    with pytest.raises(StageError, match='not a whole record file'):
        records.RecordReader(tmp_path)[0]


@pytest.mark.parametrize(
    'data',
    [b'', b'\xc1', b'text', msgpack.packb([1]), msgpack.packb({}), msgpack.packb({'format': 'x'})],
)
def test_bytes_that_are_not_a_record(data):
    with pytest.raises(StageError, match='is not a record'):
        records.decode(data)


def test_a_newer_format_is_refused(monkeypatch):
    monkeypatch.setattr(formats, 'RECORD_FORMAT', formats.RECORD_FORMAT + 1)
    data = records.encode(record(0))
    monkeypatch.undo()
    with pytest.raises(NewerFormat, match='my file has format 2, .* up to 1; update amuse'):
        records.decode(data, 'my file')
