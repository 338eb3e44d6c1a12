"""A media file opened with PyAV (FFmpeg): one stream of it, packet by packet.

Time 0 is where the file begins: where its earlier stream does, or the file's own 0 where a stream
begins before it (an encoder's priming).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av

_CUT_OFF_SECONDS = 1.0  # a stream that ends this much before its header says is incomplete


class MediaError(Exception):
    """A file that cannot be used; `reason` is a sentence without the file's name."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Source:
    """One stream of an open file.

    Attributes:
      stream: PyAV's.
      decoder: its codec context, on one thread.
      zero: in the stream's clock, the second at which the file begins.
      promised_seconds: how long the header says that the stream lasts; 0 where it only guesses.
    """

    def __init__(self, container: av.container.InputContainer, what: str):
        if what == 'sound':
            streams = list(container.streams.audio)
        else:
            cover = av.stream.Disposition.attached_pic  # a song's cover is no video
            streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            raise MediaError(f'it has no {what}')
        self.stream = streams[0]
        for other in container.streams:
            if other is not self.stream:
                other.discard = av.stream.Discard.all  # not even read
        self.decoder = self.stream.codec_context
        if self.decoder is None:
            raise MediaError(f'its {what} has a codec that is not known here')
        self.decoder.thread_count = 1
        self.zero = max(container.start_time or 0, 0) / av.time_base
        self.promised_seconds = 0.0
        if 'mp4' in container.format.name and self.stream.duration:
            self.promised_seconds = float(self.stream.duration * self.stream.time_base)
        self._what = what
        self._container = container

    def packets(self) -> Iterator[av.Packet]:
        """The packets in the order of decoding; where the file breaks off, they end."""
        try:
            for packet in self._container.demux(self.stream):
                if packet.size:
                    yield packet
        except av.FFmpegError:
            return

    def decode(self, packet: av.Packet | None) -> list:
        """The frames that `packet` completes (None: those held back); none if it is broken."""
        try:
            return self.decoder.decode(packet)
        except MemoryError:  # FFmpeg's is one too; what is decoded must not depend on the machine
            raise
        except av.FFmpegError:
            return []

    def seconds(self, timestamp: int) -> float:
        """A packet's or frame's time in seconds after the file's beginning."""
        return float(timestamp * self.stream.time_base) - self.zero

    def refuse_cut_off(self, end: float) -> None:
        """Call at the end of the file, with the second at which the stream ended.

        Raises:
          MediaError: the header says that there was more.
        """
        if self.promised_seconds - end > _CUT_OFF_SECONDS:
            raise MediaError(
                f'it is cut off: its header says {self.promised_seconds:.1f} s of {self._what}, '
                f'its data end at {end:.1f} s'
            )


@contextlib.contextmanager
def opened(path: Path, what: str) -> Iterator[Source]:
    """Opens the first stream of pictures ('picture') or of sound ('sound').

    Raises:
      MediaError: the file is missing, empty, no video, without such a stream, or cannot be decoded.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError('the file does not exist')
    if not path.is_file():  # a pipe would be waited for
        raise MediaError('it is a folder, a pipe or a device, and no file')
    if path.stat().st_size == 0:
        raise MediaError('the file is empty')
    try:
        # A name is never taken for an address, and a playlist never leads to one.
        only_files = {'protocol_whitelist': 'file'}
        container = av.open(f'file:{path}', options=only_files, metadata_errors='replace')
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f'the file is no video, or it is cut off ({_text(error)})') from error
    with container:
        try:
            yield Source(container, what)
        except (av.FFmpegError, ValueError, OverflowError, RuntimeError) as error:
            # A RuntimeError is PyAV's where FFmpeg gets no memory.
            raise MediaError(f'its {what} cannot be decoded ({_text(error)})') from error


def _text(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error)
