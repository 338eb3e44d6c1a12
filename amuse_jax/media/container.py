"""Opens a media file with PyAV (FFmpeg), chooses one of its streams and reads its packets.

Times are in seconds after the beginning of the file. The file begins where its earliest stream
begins, but not before its own time 0: audio encoders put padding ("priming") before it.
"""

import contextlib
import errno
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import av

Result = TypeVar('Result')

# FFmpeg's names of the formats that are read. A file of these formats holds its pictures and sounds
# itself. Among FFmpeg's other formats are playlists, manifests, session descriptions and image
# sequences, which lead to other files or to the network.
FORMATS = (
    'aac', 'ac3', 'aiff', 'amr', 'ape', 'asf', 'au', 'avi', 'caf', 'dts', 'dv', 'eac3', 'flac',
    'flv', 'gif', 'h264', 'hevc', 'ivf', 'm4v', 'matroska', 'mov', 'mp3', 'mp4', 'mpeg', 'mpegts',
    'mpegvideo', 'mxf', 'nut', 'ogg', 'rm', 'tta', 'voc', 'w64', 'wav', 'webm', 'wv',
)  # fmt: skip
# A stream is cut off if it ends more than this before the end that the header announces.
_CUT_OFF_SECONDS = 1.0


class MediaError(Exception):
    """A media file cannot be used.

    Attributes:
      reason: a sentence that does not name the file.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class NoStream(MediaError):
    """A media file has no picture, no sound, or no further one."""


class Undecodable(MediaError):
    """A stream cannot be decoded; another stream of the same file may be."""


class MediaStream:
    """One video or audio stream of an open file.

    Args:
      container: the open file.
      kind: 'picture' or 'sound'.
      rank: the place of the stream among those of its kind, from 0. Streams that are marked as
        default come first, then the others, in the order of the file.

    Attributes:
      stream: the PyAV stream.
      decoder: the stream's codec context; it uses one thread.
      start_seconds: the beginning of the file, in seconds on the stream's clock.
      header_seconds: length of the stream according to the file's header; 0 for file formats whose
        header only estimates it.
      file_seconds: length of the file, which may be an estimate; 0 if it is unknown.

    Raises:
      NoStream: the file has no stream of this rank.
      Undecodable: there is no decoder for the stream.
    """

    def __init__(self, container: av.container.InputContainer, kind: str, rank: int = 0):
        default, cover = av.stream.Disposition.default, av.stream.Disposition.attached_pic
        streams = container.streams.audio if kind == 'sound' else container.streams.video
        # The cover of a song is not a video.
        streams = [stream for stream in streams if not stream.disposition & cover]
        streams.sort(key=lambda stream: not stream.disposition & default)
        if rank >= len(streams):
            raise NoStream(f'it has no {kind}')
        self.stream = streams[rank]
        for other in container.streams:
            if other is not self.stream:
                other.discard = av.stream.Discard.all  # not even read
        self.decoder = self.stream.codec_context
        if self.decoder is None:
            raise Undecodable(f'its {kind} has an unknown codec')
        self.decoder.thread_count = 1
        self.start_seconds = max(container.start_time or 0, 0) / av.time_base
        self.file_seconds = max(container.duration or 0, 0) / av.time_base
        self.header_seconds = 0.0
        if 'mp4' in container.format.name and self.stream.duration:
            self.header_seconds = float(self.stream.duration * self.stream.time_base)
        self._kind = kind
        self._container = container

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets in decoding order, until the file ends or breaks off.

        Raises:
          Undecodable: they are encrypted; a decoder would make noise of them, or crash.
        """
        try:
            for packet in self._container.demux(self.stream):
                if packet.has_sidedata('encryption_info'):
                    raise Undecodable(f'its {self._kind} is encrypted')
                if packet.size:
                    yield packet
        except av.FFmpegError:
            return

    def decode(self, packet: av.Packet | None) -> list:
        """Return the frames that `packet` completes; [] if the packet is damaged.

        Args:
          packet: the next packet; at the end None, for the frames that the decoder still holds.
        """
        try:
            return self.decoder.decode(packet)
        except MemoryError:
            # PyAV's MemoryError is an FFmpegError too, but it says nothing about the packet. Which
            # frames are decoded must not depend on the machine's memory.
            raise
        except av.FFmpegError:
            return []

    def to_seconds(self, timestamp: int) -> float:
        """Convert a packet's or frame's timestamp to seconds after the beginning of the file."""
        return float(timestamp * self.stream.time_base) - self.start_seconds

    def check_complete(self, end: float) -> None:
        """Raise MediaError if the file's header announces more than was read.

        Args:
          end: the second at which the stream ended. Call this at the end of the file.
        """
        if self.header_seconds - end > _CUT_OFF_SECONDS:
            raise MediaError(
                f'it is cut off: its header says {self.header_seconds:.1f} s of {self._kind}, '
                f'its data end at {end:.1f} s'
            )


def read_stream(path: Path, kind: str, read: Callable[[MediaStream], Result]) -> Result:
    """Call `read` with the first stream of a kind that can be decoded, and return its result.

    The streams that are marked as default are tried first, as players do.

    Args:
      path: a file in one of FORMATS.
      kind: 'picture' for video, 'sound' for audio.
      read: raises Undecodable if the stream cannot be decoded; the next stream is tried then.

    Raises:
      MediaError: see `open_stream`. If no stream can be decoded, the reason is that of the first.
    """
    first = None
    for rank in itertools.count():
        try:
            with open_stream(path, kind, rank) as source:
                return read(source)
        except Undecodable as error:
            first = first or error
        except NoStream as error:
            raise first or error from None


@contextlib.contextmanager
def open_stream(path: Path, kind: str, rank: int = 0) -> Iterator[MediaStream]:
    """Open one video stream or audio stream of a file; see MediaStream for the arguments.

    Raises:
      MediaError: the file is missing, empty, not a media file, in another format than FORMATS, or
        has no such stream.
      Undecodable: this stream cannot be decoded.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError('the file does not exist')
    if not path.is_file():  # opening a pipe would wait for its writer
        raise MediaError('it is a folder, a pipe or a device, not a file')
    if path.stat().st_size == 0:
        raise MediaError('the file is empty')
    try:
        # The file: prefix and the whitelists keep FFmpeg from opening network addresses and other
        # files, whether they are in the file's name or in its content.
        options = {'protocol_whitelist': 'file', 'format_whitelist': ','.join(FORMATS)}
        container = av.open(f'file:{path}', options=options, metadata_errors='replace')
    except (av.FFmpegError, OSError) as error:
        if error.errno == errno.EINVAL:
            raise MediaError(
                'its format is not read, or it is damaged; expected a file that holds its own '
                'picture and sound, such as an mp4, and no list of other files'
            ) from error
        raise MediaError(f'the file is not a video, or it is cut off ({_text(error)})') from error
    with container:
        try:
            yield MediaStream(container, kind, rank)
        except (av.FFmpegError, ValueError, OverflowError, RuntimeError) as error:
            # PyAV raises RuntimeError when FFmpeg cannot allocate memory.
            raise Undecodable(f'its {kind} cannot be decoded ({_text(error)})') from error


def _text(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error)
