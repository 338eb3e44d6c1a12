"""Opens a media file with PyAV (FFmpeg), chooses one of its streams and reads its packets.

Times are in seconds after the beginning of the file. The file begins where its earliest stream
begins, but not before its own time 0: audio encoders put padding ("priming") before it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av

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


class MediaStream:
    """The first video or audio stream of an open file.

    Args:
      container: the open file.
      kind: 'picture' or 'sound'.

    Attributes:
      stream: the PyAV stream.
      decoder: the stream's codec context; it uses one thread.
      start_seconds: the beginning of the file, in seconds on the stream's clock.
      header_seconds: length of the stream according to the file's header; 0 for file formats whose
        header only estimates it.
    """

    def __init__(self, container: av.container.InputContainer, kind: str):
        if kind == 'sound':
            streams = list(container.streams.audio)
        else:
            cover = av.stream.Disposition.attached_pic  # the cover of a song is not a video
            streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            raise MediaError(f'it has no {kind}')
        self.stream = streams[0]
        for other in container.streams:
            if other is not self.stream:
                other.discard = av.stream.Discard.all  # not even read
        self.decoder = self.stream.codec_context
        if self.decoder is None:
            raise MediaError(f'its {kind} has an unknown codec')
        self.decoder.thread_count = 1
        self.start_seconds = max(container.start_time or 0, 0) / av.time_base
        self.header_seconds = 0.0
        if 'mp4' in container.format.name and self.stream.duration:
            self.header_seconds = float(self.stream.duration * self.stream.time_base)
        self._kind = kind
        self._container = container

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets in decoding order, until the file ends or breaks off."""
        try:
            for packet in self._container.demux(self.stream):
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


@contextlib.contextmanager
def open_stream(path: Path, kind: str) -> Iterator[MediaStream]:
    """Open the first video stream or the first audio stream of a file.

    Args:
      path: any file that FFmpeg reads.
      kind: 'picture' for video, 'sound' for audio.

    Raises:
      MediaError: the file is missing, empty, not a media file, has no such stream, or cannot be
        decoded.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError('the file does not exist')
    if not path.is_file():  # opening a pipe would wait for its writer
        raise MediaError('it is a folder, a pipe or a device, not a file')
    if path.stat().st_size == 0:
        raise MediaError('the file is empty')
    try:
        # The file: prefix and the whitelist keep FFmpeg from opening network addresses, whether
        # they are in the file's name or in a playlist.
        only_files = {'protocol_whitelist': 'file'}
        container = av.open(f'file:{path}', options=only_files, metadata_errors='replace')
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f'the file is not a video, or it is cut off ({_text(error)})') from error
    with container:
        try:
            yield MediaStream(container, kind)
        except (av.FFmpegError, ValueError, OverflowError, RuntimeError) as error:
            # PyAV raises RuntimeError when FFmpeg cannot allocate memory.
            raise MediaError(f'its {kind} cannot be decoded ({_text(error)})') from error


def _text(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error)
