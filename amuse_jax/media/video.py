"""Reads frames at given moments from video files."""

import collections
import functools
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

from amuse_jax.media import audio, container

MediaError = container.MediaError


def read_segment_frames(
    path: Path, segments: int, segment_seconds: float, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the frame at the middle of every segment (Sec. 4.1).

    If the video ends within the first half of a segment, its last frame is used for that segment.
    If the file's sound goes on after the picture, the last frame is held until the sound ends, as
    players do.

    Args:
      path: a file in one of container.FORMATS.
      segments: T, number of segments.
      segment_seconds: length of a segment.
      size: height and width of the result in pixels.

    Returns:
      Frames (segments, size, size, 3) uint8 RGB; a mask (segments,) bool, False where there is no
      frame; and the height and width of the picture in pixels, (2,) int64.

    Raises:
      MediaError: see `read_frames`.
    """
    middles = [(index + 0.5) * segment_seconds for index in range(segments)]
    return read_frames(path, middles, size, segment_seconds / 2, until_sound_ends=True)


def read_frames(
    path: Path,
    seconds: Sequence[float],
    size: int,
    hold_seconds: float = 0.0,
    *,
    until_sound_ends: bool = False,
    to_square: Callable[[av.VideoFrame, int], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the frames that a player shows at some moments, upright and stretched to a square.

    Only the necessary frames are decoded: from the last key frame before each moment, without the
    frames that no other frame refers to.

    Args:
      path: a file in one of container.FORMATS.
      seconds: the moments, in any order.
      size: height and width of the result in pixels.
      hold_seconds: how long the last frame is shown after its end.
      until_sound_ends: whether the last frame does not end before the file's sound does.
      to_square: makes a picture (size, size, 3) uint8 RGB of a frame, given the frame and the size,
        for callers that need another square than the stretched one.

    Returns:
      Frames (len(seconds), size, size, 3) uint8 RGB; a mask (len(seconds),) bool; and the height
      and width at which a player displays the video, in pixels, (2,) int64. Where the mask is
      False, the video shows nothing at that moment and the frame is black.

    Raises:
      MediaError: the file is missing, empty, not a video or cut off, or none of its frames can be
        decoded.
    """

    def read(source: container.MediaStream) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frames = np.zeros((len(seconds), size, size, 3), np.uint8)
        mask = np.zeros(len(seconds), bool)
        end_of_sound = (lambda: audio.end_seconds(path)) if until_sound_ends else lambda: 0.0
        selector = _FrameSelector(source, hold_seconds, end_of_sound)
        last = None
        for index in np.argsort(seconds, kind='stable'):
            frame = selector.frame_at(seconds[index])
            if frame is None:
                continue
            if last is None or frame is not last[0]:
                last = frame, (to_square or _upright_square)(frame, size)
            frames[index], mask[index] = last[1], True
        if selector.undecodable and not mask.any():
            raise container.Undecodable('no frame of its picture can be decoded')
        return frames, mask, _display_shape(source, last and last[0])

    return container.read_stream(path, 'picture', read)


class _FrameSelector:
    """Finds the frame that a video stream shows at a moment; moments must be in ascending order.

    Packets are read ahead until it is certain which frame a moment shows. They are kept from the
    key frame on at which decoding has to start. So the file is read once, and needs no index.

    Attributes:
      undecodable: number of requested frames that could not be decoded.
    """

    def __init__(
        self,
        source: container.MediaStream,
        hold_seconds: float,
        end_of_sound: Callable[[], float],
    ):
        stream = source.stream
        self.undecodable = 0
        self._source = source
        self._unread = source.packets()
        self._hold_seconds = hold_seconds
        self._end_of_sound = functools.cache(end_of_sound)
        self._frame_seconds = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        self._packets: collections.deque[av.Packet] = collections.deque()
        self._sent = 0  # how many of self._packets the decoder has got
        self._decoded: collections.deque[av.VideoFrame] = collections.deque()
        self._at_end = False  # no packet is left in the file
        self._drained = False  # no frame is left in the decoder

    def frame_at(self, seconds: float) -> av.VideoFrame | None:
        """Return the frame shown at that moment, or None if there is none."""
        self._read_until(seconds)
        wanted = self._packet_at(seconds)
        if wanted is None:
            return None
        self._drop_before_key_frame_of(wanted)
        frame = self._decode_until(wanted)
        self.undecodable += frame is None
        return frame

    def _read_until(self, seconds: float) -> None:
        """Read all packets that may be shown by then: no frame is shown before its packet's dts."""
        while not self._at_end:
            if self._packets:
                dts = self._packets[-1].dts
                if dts is not None and self._source.to_seconds(dts) > seconds:
                    return
            packet = self._read()
            if packet and packet.is_keyframe and self._source.to_seconds(packet.pts) <= seconds:
                self._drop(len(self._packets) - 1)

    def _read(self) -> av.Packet | None:
        packet = next(self._unread, None)
        if packet is None:
            self._at_end = True
            return None
        if packet.pts is None:
            # AVI has no pts. With reordered frames, its dts is late by the decoder's delay.
            packet.pts = packet.dts
        if packet.pts is None:
            raise container.Undecodable('the frames of its picture have no times')
        self._packets.append(packet)
        return packet

    def _packet_at(self, seconds: float) -> av.Packet | None:
        """Return the packet of the frame that is shown at that moment, or None."""
        visible = [packet for packet in self._packets if not packet.is_discard]
        if not visible:
            raise container.Undecodable('its picture has no frames')
        first, last = min(visible, key=_pts), max(visible, key=_pts)
        if self._at_end:
            duration = float((last.duration or 0) * last.time_base) or self._frame_seconds
            end = self._source.to_seconds(last.pts) + duration
            self._source.check_complete(end)
            is_over = seconds >= end + self._hold_seconds
            if is_over and seconds >= self._end_of_sound() + self._hold_seconds:
                return None
        started = [packet for packet in visible if self._source.to_seconds(packet.pts) <= seconds]
        if started:
            return max(started, key=_pts)
        # If the stream starts at most one frame later, its first frame is shown.
        delay = self._source.to_seconds(first.pts) - seconds
        return first if delay <= self._frame_seconds else None

    def _drop_before_key_frame_of(self, wanted: av.Packet) -> None:
        """Drop the packets before the key frame on which `wanted` depends."""
        start = 0
        for index, packet in enumerate(self._packets):
            if packet.is_keyframe and packet.pts <= wanted.pts:
                start = index
            if packet is wanted:
                break
        self._drop(start)

    def _drop(self, count: int) -> None:
        """Drop the first `count` packets, and reset the decoder if it has not got all of them."""
        for _ in range(count):
            self._packets.popleft()
        if count > self._sent:
            self._source.decoder.flush_buffers()
            self._decoded.clear()
            self._sent, self._drained = 0, False
        else:
            self._sent -= count

    def _decode_until(self, wanted: av.Packet) -> av.VideoFrame | None:
        """Return the frame of `wanted`; if it is damaged, the decoded frame before it, or None."""
        best = None
        while True:
            while self._decoded:
                if _pts(self._decoded[0]) > wanted.pts:
                    return best
                best = self._decoded[0]
                if _pts(best) == wanted.pts:
                    return best  # keep it in self._decoded: the next moment may show it too
                self._decoded.popleft()
            if not self._advance(wanted):
                return best

    def _advance(self, wanted: av.Packet) -> bool:
        """Send the next packet to the decoder; return False if nothing is left to decode."""
        if self._sent == len(self._packets) and not self._at_end:
            self._read()
        if self._sent < len(self._packets):
            packet = self._packets[self._sent]
            self._sent += 1
            # Before the wanted frame, only frames that other frames refer to are decoded.
            before = packet.pts < wanted.pts
            self._source.decoder.skip_frame = 'NONREF' if before else 'DEFAULT'
            self._decoded.extend(self._source.decode(packet))
            return True
        if self._drained:
            return False
        self._drained = True
        self._decoded.extend(self._source.decode(None))
        return True


def _pts(item: av.Packet | av.VideoFrame) -> int:
    return item.pts if item.pts is not None else item.dts


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return a, b, c and d in 16.16 fixed point: pixel (x, y) is shown at (ax + cy, bx + dy)."""
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return 1 << 16, 0, 0, 1 << 16
    a, b, _, c, d = struct.unpack('<5i', bytes(matrix)[:20])  # FFmpeg's display.h
    return a, b, c, d


def _upright_square(frame: av.VideoFrame, size: int) -> np.ndarray:
    """Scale a frame to size x size, and turn or mirror it as its display matrix says."""
    return upright(frame, (size, size))


def upright(frame: av.VideoFrame, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Return the picture of a frame, turned or mirrored as its display matrix says.

    Args:
      frame: a decoded frame.
      shape: height and width to which the frame is scaled before it is turned, in pixels; None
        for its own.

    Returns:
      (height, width, 3) uint8 RGB; height and width change places if the frame lies on its side.
    """
    height, width = shape or (frame.height, frame.width)
    pixels = frame.reformat(
        width, height, 'rgb24', interpolation=Interpolation.BICUBIC, threads=1
    ).to_ndarray()
    a, b, c, d = _display_matrix(frame)
    if abs(a) >= abs(b):
        return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return pixels.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def _display_shape(source: container.MediaStream, frame: av.VideoFrame | None) -> np.ndarray:
    """Return the height and width at which a player displays a video, (2,) int64.

    They include the aspect ratio of the pixels and, if there is a frame, its rotation.
    """
    shown = frame or source.decoder
    pixel = float(source.stream.sample_aspect_ratio or 1)
    shape = max(shown.height, 1), max(round(shown.width * pixel), 1)
    if frame is not None:
        a, b, _, _ = _display_matrix(frame)
        shape = shape if abs(a) >= abs(b) else shape[::-1]
    return np.array(shape, np.int64)
