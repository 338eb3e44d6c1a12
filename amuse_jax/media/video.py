"""Pictures and sound out of video files, at the moments and at the rate that are wanted."""

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

_GAP_SECONDS = 0.05  # holes in the sound that are shorter are an encoder's rounding


def read_segment_frames(
    path: Path, segments: int, segment_seconds: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The picture at the middle of every segment (Sec. 4.1).

    Where the video ends within the first half of a segment, its last picture stands for it.

    Returns:
      Pictures (segments, size, size, 3) uint8, and a mask (segments,) bool, False after the end.

    Raises:
      MediaError: see `read_frames`.
    """
    middles = [(index + 0.5) * segment_seconds for index in range(segments)]
    return read_frames(path, middles, size, hold_seconds=segment_seconds / 2)


def read_frames(
    path: Path, seconds: Sequence[float], size: int, hold_seconds: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The pictures that a player shows at some moments, upright, stretched to a square.

    Only what these pictures depend on is decoded: from the key frame before each, without the
    frames that no other refers to.

    Args:
      path: any file that FFmpeg reads.
      seconds: the moments, in any order.
      size: pixels on a side.
      hold_seconds: how long the last picture stays beyond its own duration.

    Returns:
      Pictures (len(seconds), size, size, 3) uint8 RGB, and a mask (len(seconds),) bool; where it is
      False the video shows nothing at that moment, and the picture is black.

    Raises:
      MediaError: the file is missing, empty, no video, cut off, or nothing in it can be decoded.
    """
    pictures = np.zeros((len(seconds), size, size, 3), np.uint8)
    mask = np.zeros(len(seconds), bool)
    with container.opened(path, 'picture') as source:
        shown = _ShownFrames(source, hold_seconds)
        last = None
        for index in np.argsort(seconds, kind='stable'):
            frame = shown.at(seconds[index])
            if frame is None:
                continue
            if last is None or frame is not last[0]:
                last = frame, _upright_square(frame, size)
            pictures[index], mask[index] = last[1], True
    if shown.broken and not mask.any():
        raise MediaError('no frame of its picture can be decoded')
    return pictures, mask


def read_audio(path: Path, sample_rate: int, seconds: float) -> tuple[np.ndarray, float]:
    """The sound from the beginning, as the mean of its channels.

    Args:
      path: any file that FFmpeg reads.
      sample_rate: of the result, in Hz.
      seconds: length of the result; a shorter sound is padded with silence, a longer one cut.

    Returns:
      Samples (round(seconds * sample_rate),) float32, full scale at 1; and how many seconds the
      sound really lasts (by the file's header where it is longer than `seconds`).

    Raises:
      MediaError: the file is missing, empty, no video, without sound, cut off, or nothing of its
        sound can be decoded.
    """
    samples = np.zeros(round(seconds * sample_rate), np.float32)
    with container.opened(path, 'sound') as source:
        end = 0.0
        for start, rate, mono in _runs(source, seconds):
            end = start + len(mono) / rate
            _place(samples, _resample(mono, rate, sample_rate), round(start * sample_rate))
        if not end:
            raise MediaError('nothing of its sound can be decoded')
        if end < seconds:
            source.refuse_cut_off(end)
            return samples, end
        return samples, max(end, source.promised_seconds)


class _ShownFrames:
    """What one stream of pictures shows at moments that are asked for in ascending order.

    Packets are read ahead until it is certain which frame a moment shows, and kept from the key
    frame that its decoding starts at. So the file is read once, and no index of it is needed.
    """

    def __init__(self, source: container.Source, hold_seconds: float):
        stream = source.stream
        self.broken = 0  # frames that were wanted and could not be decoded
        self._source = source
        self._unread = source.packets()
        self._hold_seconds = hold_seconds
        self._frame_seconds = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        self._packets: collections.deque[av.Packet] = collections.deque()
        self._sent = 0  # of the kept packets, how many the decoder has had
        self._decoded: collections.deque[av.VideoFrame] = collections.deque()
        self._at_end = self._drained = False  # of the file; of the decoder

    def at(self, seconds: float) -> av.VideoFrame | None:
        """The frame shown then; None where there is none."""
        self._read_until(seconds)
        wanted = self._packet_shown(seconds)
        if wanted is None:
            return None
        self._go_to(wanted)
        frame = self._decode_until(wanted)
        self.broken += frame is None
        return frame

    def _read_until(self, seconds: float) -> None:
        """Reads every packet that is shown by then: what is shown is never before its dts."""
        while not self._at_end:
            if self._packets:
                dts = self._packets[-1].dts
                if dts is not None and self._source.seconds(dts) > seconds:
                    return
            packet = self._read()
            if packet and packet.is_keyframe and self._source.seconds(packet.pts) <= seconds:
                self._forget(len(self._packets) - 1)

    def _read(self) -> av.Packet | None:
        packet = next(self._unread, None)
        if packet is None:
            self._at_end = True
            return None
        if packet.pts is None:
            packet.pts = packet.dts  # AVI; late by the decoder's delay if frames are reordered
        if packet.pts is None:
            raise MediaError('the frames of its picture have no times')
        self._packets.append(packet)
        return packet

    def _packet_shown(self, seconds: float) -> av.Packet | None:
        shown = [packet for packet in self._packets if not packet.is_discard]
        if not shown:
            raise MediaError('its picture has no frames')
        first, last = min(shown, key=_pts), max(shown, key=_pts)
        if self._at_end:
            lasting = float((last.duration or 0) * last.time_base) or self._frame_seconds
            end = self._source.seconds(last.pts) + lasting
            self._source.refuse_cut_off(end)
            if seconds >= end + self._hold_seconds:
                return None
        started = [packet for packet in shown if self._source.seconds(packet.pts) <= seconds]
        if started:
            return max(started, key=_pts)
        # A stream that starts within a frame of the moment shows its first frame.
        return first if self._source.seconds(first.pts) - seconds <= self._frame_seconds else None

    def _go_to(self, wanted: av.Packet) -> None:
        """Drops what lies before the key frame that `wanted` depends on."""
        start = 0
        for index, packet in enumerate(self._packets):
            if packet.is_keyframe and packet.pts <= wanted.pts:
                start = index
            if packet is wanted:
                break
        self._forget(start)

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._packets.popleft()
        if count > self._sent:
            self._source.decoder.flush_buffers()
            self._decoded.clear()
            self._sent, self._drained = 0, False
        else:
            self._sent -= count

    def _decode_until(self, wanted: av.Packet) -> av.VideoFrame | None:
        """The frame of `wanted`, or where it is broken the one before."""
        best = None
        while True:
            while self._decoded:
                if _pts(self._decoded[0]) > wanted.pts:
                    return best
                best = self._decoded[0]
                if _pts(best) == wanted.pts:
                    return best  # stays in front, for the next moment may show it too
                self._decoded.popleft()
            if not self._advance(wanted):
                return best

    def _advance(self, wanted: av.Packet) -> bool:
        """Gives the decoder the next packet; False when there is none."""
        if self._sent == len(self._packets) and not self._at_end:
            self._read()
        if self._sent < len(self._packets):
            packet = self._packets[self._sent]
            self._sent += 1
            # Frames before the wanted one are only decoded for those that refer to them.
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
    square = frame.reformat(
        size, size, 'rgb24', interpolation=Interpolation.BICUBIC, threads=1
    ).to_ndarray()
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return square
    # (x, y) is shown at (a x + c y, b x + d y); 16.16 fixed point, after FFmpeg's display.h.
    a, b, _, c, d = struct.unpack('<5i', bytes(matrix)[:20])
    if abs(a) >= abs(b):
        return square[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return square.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def _runs(source: container.Source, seconds: float) -> Iterator[tuple[float, int, np.ndarray]]:
    """Unbroken parts of the sound: (start in seconds, sample rate, mean of the channels).

    A part ends where frames are missing, or where the sample rate or the channels change.
    """
    fifo, start, end, rate = av.AudioFifo(), 0.0, 0.0, 1
    for frame in _audio_frames(source):
        frame_start = end
        if frame.pts is not None:
            frame_start = float(frame.pts * frame.time_base) - source.zero
        if frame_start >= seconds:
            break
        frame.pts = None  # else the queue insists on times that are exact to the sample
        if fifo.samples and abs(frame_start - end) <= _GAP_SECONDS:
            with contextlib.suppress(ValueError):  # of another kind than what is in the queue
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


def _audio_frames(source: container.Source) -> Iterator[av.AudioFrame]:
    for packet in itertools.chain(source.packets(), [None]):
        yield from source.decode(packet)


def _mono(frame: av.AudioFrame) -> np.ndarray:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == 'u':  # 8 bits, silence at 128
        return (samples.mean(0, dtype=np.float32) - 128) / 128
    # Our own mean: FFmpeg's mix of several channels to one is louder than they are.
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


def _place(samples: np.ndarray, run: np.ndarray, start: int) -> None:
    """Writes `run` into `samples` from sample `start` on; what does not fit is cut."""
    run = run[max(-start, 0) :]
    part = samples[max(start, 0) :][: len(run)]
    part[:] = run[: len(part)]
