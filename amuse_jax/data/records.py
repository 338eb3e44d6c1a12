"""Records: what `prepare` leaves of one video, in ArrayRecord shards, and how to read them.

A shard is one file that appears whole or not at all. Its last entry is not a record but the shard's
contents: which videos it holds, and which were set aside and why. A record is msgpack, so that
nothing is unpickled.
"""

import threading
from collections.abc import Mapping
from pathlib import Path

import msgpack
from array_record.python import array_record_module
from flax import serialization

from amuse_jax.errors import StageError
from amuse_jax.system import formats

SUFFIX = '.array_record'

# Reading ahead would fetch the neighbours of what a shuffled reader wants.
_READER = 'readahead_buffer_size:0'
_WRITER = 'group_size:1'  # every record on its own: true random access


def encode(record: Mapping) -> bytes:
    """Packs a dict of arrays, numbers, texts, lists and dicts."""
    return serialization.msgpack_serialize({'format': formats.RECORD_FORMAT, **record})


def decode(data: bytes, where: str = 'a record') -> dict:
    """Unpacks what `encode` packed; lists come back as lists, arrays read-only.

    Args:
      data: the bytes.
      where: what the message of an error calls them.

    Raises:
      StageError: the bytes are no record, or a newer version packed them.
    """
    try:
        record = serialization.msgpack_restore(data)
        formats.refuse_newer(record.pop('format'), formats.RECORD_FORMAT, where)
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise StageError(
            f'{where} is not a record of amuse_jax ({error}); delete the file and run prepare again'
        ) from error
    return record


class ShardWriter:
    """Writes one shard, record by record; `close` makes it whole.

    Args:
      path: the file.
    """

    def __init__(self, path: Path):
        self._writer = array_record_module.ArrayRecordWriter(str(path), _WRITER)

    def write(self, record: Mapping) -> None:
        self._writer.write(encode(record))

    def close(self, contents: Mapping) -> None:
        """Ends the shard with its contents; `contents['videos']` has one dict per record."""
        self._writer.write(encode(contents))
        self._writer.close()


def read_contents(path: Path) -> dict:
    """What `ShardWriter.close` was given.

    Raises:
      StageError: the file is not a whole shard.
    """
    try:
        reader = _open(path)
        count = reader.num_records()  # 0 of a file that breaks off; closing it says why
        data = reader.read([count - 1])[0] if count else b''
        reader.close()
    except RuntimeError as error:
        raise _damaged(path, str(error)) from error
    contents = decode(data, str(path))
    if not isinstance(contents.get('videos'), list) or len(contents['videos']) != count - 1:
        raise _damaged(path, f'{count} entries do not fit its list of contents')
    return contents


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a folder, in order.

    Raises:
      StageError: there is none, or not all of them are there.
    """
    paths = sorted(folder.glob(f'[0-9]*-of-[0-9]*{SUFFIX}'))
    if not paths:
        raise StageError(f'{folder} holds no records (*{SUFFIX}); run the stage prepare before')
    expected = int(paths[0].name.removesuffix(SUFFIX).rpartition('-')[2])
    if len(paths) != expected:
        raise StageError(
            f'{folder} holds {len(paths)} of {expected} record files; run prepare again to make '
            'the missing ones'
        )
    return paths


class RecordReader:
    """Random access to the records of all shards, in the order of videos.json.

    May be shared by threads, and sent to other processes, where it opens the files anew.

    Args:
      folder: the stage's folder of records, `prepare/records`.

    Attributes:
      videos: the entries of videos.json.

    Raises:
      StageError: no shards, missing shards, a damaged shard, or one of a newer version.
    """

    def __init__(self, folder: Path):
        self._paths = shard_paths(Path(folder))
        contents = [read_contents(path) for path in self._paths]
        self.videos: list[dict] = [video for part in contents for video in part['videos']]
        self._places = [
            (shard, position)
            for shard, part in enumerate(contents)
            for position in range(len(part['videos']))
        ]
        self._readers: dict[int, array_record_module.ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict:
        """Record `index`.

        Returns:
          'video_id', 'sound_id', 'seconds', 'frames' (T, S, S, 3) uint8, 'frame_mask' (T,) bool,
          'log_mel' (T, F, M) float16 in dB, 'audio_mask' (T,) bool, 'questions': list of dicts.

        Raises:
          IndexError: there is no such record.
          StageError: its file is damaged.
        """
        shard, position = self._places[index]
        try:
            with self._lock:
                if shard not in self._readers:
                    self._readers[shard] = _open(self._paths[shard])
            data = self._readers[shard].read([position])[0]
        except RuntimeError as error:
            raise _damaged(self._paths[shard], str(error)) from error
        return decode(data, f'record {position} of {self._paths[shard]}')

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_readers': {}, '_lock': None}

    def __setstate__(self, state: Mapping) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def _open(path: Path) -> array_record_module.ArrayRecordReader:
    return array_record_module.ArrayRecordReader(
        str(path), options=_READER, file_reader_buffer_size=32768
    )


def _damaged(path: Path, reason: str) -> StageError:
    return StageError(
        f'{path} is not a whole record file ({reason}); delete it and run prepare again, which '
        'makes only what is missing'
    )
