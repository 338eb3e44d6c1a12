"""Records in ArrayRecord shards: one record holds the arrays and the questions of one video.

A shard is one file, which appears complete or not at all. Its last entry is not a record but the
shard's table of contents: the videos in it, and the videos that were set aside with the reasons.
Records are packed with msgpack, so reading them never unpickles anything.
"""

import threading
from collections.abc import Mapping
from pathlib import Path

import msgpack
import numpy as np
from array_record.python import array_record_module
from flax import serialization

from amuse_jax.errors import StageError
from amuse_jax.system import formats

SUFFIX = '.array_record'

# Records are read in random order, so reading ahead would fetch records that are not needed next.
_READER_OPTIONS = 'readahead_buffer_size:0'
_WRITER_OPTIONS = 'group_size:1'  # one record per group, for true random access


def encode(record: Mapping) -> bytes:
    """Pack a dict of arrays, numbers, strings, lists and dicts."""
    return serialization.msgpack_serialize({'format': formats.RECORD_FORMAT, **record})


def decode(data: bytes, where: str = 'a record') -> dict:
    """Unpack what `encode` packed. Lists come back as lists, and arrays are read-only.

    Args:
      data: the packed record.
      where: name of the record in error messages.

    Raises:
      StageError: the bytes are not a record, or a newer version of amuse_jax packed them.
    """
    try:
        record = serialization.msgpack_restore(data)
        formats.refuse_newer(record.pop('format'), formats.RECORD_FORMAT, where)
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise StageError(
            f'{where} is not a record of amuse_jax ({error}); delete the file and run prepare again'
        ) from error
    return record


def segment_mask(record: Mapping) -> np.ndarray:
    """Return which segments of a video exist: those with a picture or a sound, (T,) bool.

    Training, evaluation and `ask` all use this mask.
    """
    return record['frame_mask'] | record['audio_mask']


class ShardWriter:
    """A writer of one shard; the shard is complete after `close`.

    Args:
      path: the file to write.
    """

    def __init__(self, path: Path):
        self._writer = array_record_module.ArrayRecordWriter(str(path), _WRITER_OPTIONS)

    def write(self, record: Mapping) -> None:
        """Append one record."""
        self._writer.write(encode(record))

    def close(self, contents: Mapping) -> None:
        """Append the table of contents and close the file.

        Args:
          contents: 'videos' lists one dict per record, in order; other keys are up to the caller.
        """
        self._writer.write(encode(contents))
        self._writer.close()


def read_contents(path: Path) -> dict:
    """Return a shard's table of contents, as it was passed to `ShardWriter.close`.

    Raises:
      StageError: the file is incomplete, damaged or of a newer version.
    """
    try:
        reader = _open(path)
        count = reader.num_records()  # 0 if the file is cut off; then close() raises the reason
        data = reader.read([count - 1])[0] if count else b''
        reader.close()
    except RuntimeError as error:
        raise _damaged(path, str(error)) from error
    contents = decode(data, str(path))
    if not isinstance(contents.get('videos'), list) or len(contents['videos']) != count - 1:
        raise _damaged(path, f'{count} entries do not fit its list of contents')
    return contents


def shard_paths(folder: Path) -> list[Path]:
    """Return the paths of a folder's shards, in order.

    Raises:
      StageError: there are no shards, or some are missing.
    """
    paths = sorted(folder.glob(f'[0-9]*-of-[0-9]*{SUFFIX}'))
    if not paths:
        raise StageError(f'{folder} holds no records (*{SUFFIX}); run the stage prepare first')
    expected = int(paths[0].name.removesuffix(SUFFIX).rpartition('-')[2])
    if len(paths) != expected:
        raise StageError(
            f'{folder} holds {len(paths)} of {expected} record files; run prepare again to make '
            'the missing ones'
        )
    return paths


class RecordReader:
    """Random access to the records of all shards, in the order of videos.json.

    Threads may share a reader. A reader can also be pickled and sent to another process, which then
    opens the files again.

    Args:
      folder: the prepare stage's folder of records, `prepare/records`.

    Attributes:
      videos: one entry per record: 'video_id', 'sound_id' and 'seconds'.

    Raises:
      StageError: there are no shards, a shard is missing or damaged, or a newer version wrote it.
    """

    def __init__(self, folder: Path):
        self._paths = shard_paths(Path(folder))
        contents = [read_contents(path) for path in self._paths]
        self.videos: list[dict] = [video for part in contents for video in part['videos']]
        self._locations = [
            (shard, position)
            for shard, part in enumerate(contents)
            for position in range(len(part['videos']))
        ]
        self._readers: dict[int, array_record_module.ArrayRecordReader] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._locations)

    def __getitem__(self, index: int) -> dict:
        """Read one record.

        Returns:
          A dict with 'video_id', 'sound_id', 'seconds', 'frames' (T, S, S, 3) uint8, 'frame_mask'
          (T,) bool, 'log_mel' (T, F, M) float16 in dB, 'audio_mask' (T,) bool, 'questions', a list
          of dicts, and 'shape', the picture's height and width in pixels. Records of earlier
          versions have no 'shape'.

        Raises:
          IndexError: there is no such record.
          StageError: the record's file is damaged.
        """
        shard, position = self._locations[index]
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
        str(path), options=_READER_OPTIONS, file_reader_buffer_size=32768
    )


def _damaged(path: Path, reason: str) -> StageError:
    return StageError(
        f'{path} is not a whole record file ({reason}); delete it and run prepare again, which '
        'writes only the missing files'
    )
