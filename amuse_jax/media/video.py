"""Reads frames at given moments, and sound at a given sample rate, from video files."""

import collections
import contextlib
import itertools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

from amuse_jax.media import container

MediaError = container.MediaError

_GAP_SECONDS = 0.05  # shorter gaps in the sound come from an encoder's rounding


def read_segment_frames(
    path: Path, segments: int, segment_seconds: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read the frame at the middle of every segment (Sec. 4.1).

    If the video ends within the first half of a segment, its last frame is used for that segment.

    Args:
      path: any file that FFmpeg reads.
      segments: T, number of segments.
      segment_seconds: length of a segment.
      size: height and width of the result in pixels.

    Returns:
      Frames (segments, size, size, 3) uint8 RGB, and a mask (segments,) bool, False where there is
      no frame.

    Raises:
      MediaError: see `read_frames`.
    """
    middles = [(index + 0.5) * segment_seconds for index in range(segments)]
    return read_frames(path, middles, size, hold_seconds=segment_seconds / 2)


def read_frames(
    path: Path, seconds: Sequence[float], size: int, hold_seconds: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Read the frames that a player shows at some moments, upright and stretched to a square.

    Only the necessary frames are decoded: from the last key frame before each moment, without the
    frames that no other frame refers to.

    Args:
      path: any file that FFmpeg reads.
      seconds: the moments, in any order.
      size: height and width of the result in pixels.
      hold_seconds: how long the last frame is shown after its own duration.

    Returns:
      Frames (len(seconds), size, size, 3) uint8 RGB, and a mask (len(seconds),) bool. Where the
      mask is False, the video shows nothing at that moment and the frame is black.

    Raises:
      MediaError: the file is missing, empty, not a video or cut off, or none of its frames can be
        decoded.
    """
    frames = np.zeros((len(seconds), size, size, 3), np.uint8)
    mask = np.zeros(len(seconds), bool)
    with container.open_stream(path, 'picture') as source:
        selector = _FrameSelector(source, hold_seconds)
        last = None
        for index in np.argsort(seconds, kind='stable'):
            frame = selector.frame_at(seconds[index])
            if frame is None:
                continue
            if last is None or frame is not last[0]:
                last = frame, _upright_square(frame, size)
            frames[index], mask[index] = last[1], True
    if selector.undecodable and not mask.any():
        raise MediaError('no frame of its picture can be decoded')
    return frames, mask


def read_audio(path: Path, sample_rate: int, seconds: float) -> tuple[np.ndarray, float]:
    """Read the sound from its beginning, as the mean of its channels.

    Args:
      path: any file that FFmpeg reads.
      sample_rate: sample rate of the result, in Hz.
      seconds: length of the result. A shorter sound is padded with silence, a longer one is cut.

    Returns:
      Samples (round(seconds * sample_rate),) float32, full scale at 1; and the real length of the
      sound in seconds. If the sound is longer than `seconds`, that length is the one in the file's
      header.

    Raises:
      MediaError: the file is missing, empty, not a media file, without sound or cut off, or none of
        its sound can be decoded.
    """
    samples = np.zeros(round(seconds * sample_rate), np.float32)
    with container.open_stream(path, 'sound') as source:
        end = 0.0
        for start, rate, mono in _continuous_parts(source, seconds):
            end = start + len(mono) / rate
            _copy_into(samples, _resample(mono, rate, sample_rate), round(start * sample_rate))
        if not end:
            raise MediaError('nothing of its sound can be decoded')
        if end < seconds:
            source.check_complete(end)
            return samples, end
        return samples, max(end, source.header_seconds)


class _FrameSelector:
    """Finds the frame that a video stream shows at a moment; moments must be in ascending order.

    Packets are read ahead until it is certain which frame a moment shows. They are kept from the
    key frame on at which decoding has to start. So the file is read once, and needs no index.

    Attributes:
      undecodable: number of requested frames that could not be decoded.
    """

    def __init__(self, source: container.MediaStream, hold_seconds: float):
        stream = source.stream
        self.undecodable = 0
        self._source = source
        self._unread = source.packets()
        self._hold_seconds = hold_seconds
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
            raise MediaError('the frames of its picture have no times')
        self._packets.append(packet)
        return packet

    def _packet_at(self, seconds: float) -> av.Packet | None:
        """Return the packet of the frame that is shown at that moment, or None."""
        visible = [packet for packet in self._packets if not packet.is_discard]
        if not visible:
            raise MediaError('its picture has no frames')
        first, last = min(visible, key=_pts), max(visible, key=_pts)
        if self._at_end:
            duration = float((last.duration or 0) * last.time_base) or self._frame_seconds
            end = self._source.to_seconds(last.pts) + duration
            self._source.check_complete(end)
            if seconds >= end + self._hold_seconds:
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


def _upright_square(frame: av.VideoFrame, size: int) -> np.ndarray:
    """Scale a frame to size x size, and turn or mirror it as its display matrix says."""
    square = frame.reformat(
        size, size, 'rgb24', interpolation=Interpolation.BICUBIC, threads=1
    ).to_ndarray()
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return square
    # Pixel (x, y) is shown at (a x + c y, b x + d y), in 16.16 fixed point (FFmpeg's display.h).
    a, b, _, c, d = struct.unpack('<5i', bytes(matrix)[:20])
    if abs(a) >= abs(b):
        return square[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return square.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def _continuous_parts(
    source: container.MediaStream, seconds: float
) -> Iterator[tuple[float, int, np.ndarray]]:
    """Yield the continuous parts of the sound: (start in seconds, sample rate, mono samples).

    A part ends where frames are missing, or where the sample rate or the channels change.
    """
    fifo, start, end, rate = av.AudioFifo(), 0.0, 0.0, 1
    for frame in _audio_frames(source):
        frame_start = end
        if frame.pts is not None:
            frame_start = float(frame.pts * frame.time_base) - source.start_seconds
        if frame_start >= seconds:
            break
        frame.pts = None  # with a pts, the queue requires times that are exact to the sample
        if fifo.samples and abs(frame_start - end) <= _GAP_SECONDS:
            # The queue raises ValueError if the sample rate, the format or the channels differ.
            with contextlib.suppress(ValueError):
                fifo.write(frame)
                end += frame.samples / rate
                continue
        if fifo.samples:
            yield start, rate, _mono(fifo.read())
        fifo, start, rate = av.AudioFifo(), frame_start, frame.sample_rate
        fifo.write(frame)
        end = start + frame.samples / rate
    if fifo.samples:
        yield start, rate, _mono(fifo.read())


def _audio_frames(source: container.MediaStream) -> Iterator[av.AudioFrame]:
    for packet in itertools.chain(source.packets(), [None]):
        yield from source.decode(packet)


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """Return the mean of the channels as float32, full scale at 1."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == 'u':  # unsigned 8 bits: silence is 128
        return (samples.mean(0, dtype=np.float32) - 128) / 128
    # FFmpeg's own mix to one channel is not used, because it is louder than the mean.
    mono = samples.mean(0, dtype=np.float32)
    return mono / -np.float32(np.iinfo(samples.dtype).min) if samples.dtype.kind == 'i' else mono


def _resample(samples: np.ndarray, rate: int, wanted_rate: int) -> np.ndarray:
    if rate == wanted_rate:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format='fltp', layout='mono')
    frame.sample_rate = rate
    resampler = av.AudioResampler('fltp', 'mono', wanted_rate)
    frames = resampler.resample(frame) + resampler.resample(None)
    return np.concatenate([part.to_ndarray()[0] for part in frames])


def _copy_into(samples: np.ndarray, part: np.ndarray, start: int) -> None:
    """Copy `part` into `samples` at index `start`; cut it where it does not fit."""
    part = part[max(-start, 0) :]
    target = samples[max(start, 0) :][: len(part)]
    target[:] = part[: len(target)]
