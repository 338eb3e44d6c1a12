import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amuse_jax.media import audio, video

FIXED = 1 << 16  # 1.0 in a display matrix
LAST = 1 << 30
MATRICES = {  # (x, y) -> (a x + c y, b x + d y): a b u c d v x y w
    'quarter': (0, FIXED, 0, -FIXED, 0, 0, 0, 0, LAST),
    'half': (-FIXED, 0, 0, 0, -FIXED, 0, 0, 0, LAST),
    'three quarters': (0, -FIXED, 0, FIXED, 0, 0, 0, 0, LAST),
    'mirrored': (-FIXED, 0, 0, 0, FIXED, 0, 0, 0, LAST),
}


def frames_one_by_one(path, seconds, size):
    """Decode every frame, and take the last frame that has started at each moment."""
    with av.open(str(path)) as container:
        frames = sorted(container.decode(video=0), key=lambda frame: frame.pts)
    shown = []
    for moment in seconds:
        started = [frame for frame in frames if frame.time <= moment + 1e-9]
        shown.append(started[-1].reformat(size, size, 'rgb24', interpolation='BICUBIC'))
    return np.stack([frame.to_ndarray() for frame in shown])


CODECS = {
    'h264': ('a.mp4', dict(codec='libx264', options=(('bf', '3'), ('b-pyramid', 'normal')))),
    'h264 open groups': ('b.mp4', dict(codec='libx264', options=(('x264-params', 'open-gop=1'),))),
    'one group': ('c.mp4', dict(codec='libx264', group=1000)),
    'h265': ('d.mp4', dict(codec='libx265', options=(('x265-params', 'log-level=none'),))),
    'vp9': ('e.webm', dict(codec='libvpx-vp9', options=(('deadline', 'realtime'),))),
    'mpeg4': ('f.avi', dict(codec='mpeg4', options=(('bf', '0'),))),
    'transport stream': ('g.ts', dict(codec='libx264')),
    'variable rate': (
        'h.mkv',
        dict(codec='libx264', times=tuple(i * (i + 3) // 4 for i in range(40))),
    ),
    '10 bits': ('i.mp4', dict(codec='libx264', pixels='yuv420p10le')),
    '4:4:4': ('j.mp4', dict(codec='libx264', pixels='yuv444p')),
}


@pytest.mark.parametrize('name', CODECS)
def test_frames_equal_those_of_a_full_decode(name, media, tmp_path):
    file, changes = CODECS[name]
    path = media.write(tmp_path / file, media.Picture(seconds=4, **changes), None)
    with av.open(str(path)) as container:
        zero = container.start_time / 1e6
    moments = [3.05, 0.0, 0.31, 0.32, 1.77, 1.77, 2.46, 2.95, 3.85]
    pictures, mask, _ = video.read_frames(path, moments, 32)
    assert mask.all()
    expected = frames_one_by_one(path, np.array(moments) + zero, 32)
    np.testing.assert_array_equal(pictures, expected)


def test_any_moments_in_any_order(media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=4, fps=15, group=9), None)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.floats(0, 3.99), min_size=1, max_size=6))
    def check(moments):
        pictures, mask, _ = video.read_frames(path, moments, 16)
        assert mask.all()
        np.testing.assert_array_equal(pictures, frames_one_by_one(path, moments, 16))

    check()


def test_one_frame_a_second_and_the_end(media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=3, fps=1), media.Sound())
    moments = [0.5, 2.9, 3.0, 3.5, 7.0]
    pictures, mask, _ = video.read_frames(path, moments, 16)
    assert mask.tolist() == [True, True, False, False, False]
    assert not pictures[2:].any() and pictures[:2].any()
    held, mask, _ = video.read_frames(path, moments, 16, hold_seconds=1.0)
    assert mask.tolist() == [True, True, True, True, False]
    np.testing.assert_array_equal(held[2], held[1])


def test_a_short_video_fills_the_segments_that_it_reaches(media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=7), None)
    _, mask, shape = video.read_segment_frames(path, 10, 6.0, 16)
    assert shape.tolist() == [48, 64]
    assert mask.tolist() == [True, True] + [False] * 8


@pytest.mark.parametrize('name', MATRICES)
def test_pictures_are_upright(name, media, tmp_path):
    stored = np.zeros((5, 64, 64, 3), np.uint8)
    stored[:, :32, :32, 0] = 255  # red top left
    stored[:, :32, 32:, 1] = 255  # green top right
    stored[:, 32:, :32, 2] = 255  # blue bottom left
    upright = {
        'quarter': np.rot90(stored[0], -1),
        'half': np.rot90(stored[0], 2),
        'three quarters': np.rot90(stored[0], 1),
        'mirrored': stored[0, :, ::-1],
    }[name]
    picture = media.Picture(seconds=0.5, height=64, matrix=MATRICES[name], pixels='yuv444p')
    path = media.write(tmp_path / 'a.mp4', picture, None, frames=stored)
    with av.open(str(path)) as container:  # FFmpeg counts rotations counterclockwise
        rotation = next(container.decode(video=0)).rotation
    expected = {'quarter': -90, 'half': -180, 'three quarters': 90, 'mirrored': rotation}[name]
    assert rotation == expected
    pictures, _, _ = video.read_frames(path, [0.2], 16)
    corners = (slice(3, 14, 9), slice(3, 14, 9))  # away from the soft edges
    small = upright[2::4, 2::4]
    difference = pictures[0][corners].astype(int) - small[corners]
    assert np.abs(difference).max() < 30


def test_white_stays_white(media, tmp_path):
    for name, pixels in (('a.mp4', 'yuv420p'), ('b.mp4', 'yuvj420p')):
        frames = np.full((3, 48, 64, 3), 255, np.uint8)
        picture = media.Picture(seconds=0.3, pixels=pixels)
        path = media.write(tmp_path / name, picture, None, frames=frames)
        assert video.read_frames(path, [0.1], 16)[0].min() > 250


def test_a_picture_that_starts_late(media, tmp_path):
    picture = media.Picture(seconds=2, start=2.0)
    path = media.write(tmp_path / 'a.mp4', picture, media.Sound(seconds=4))
    _, mask, _ = video.read_frames(path, [0.5, 1.95, 3.0], 16)
    assert mask.tolist() == [False, True, True]


def tones(samples, sound, sample_rate, start=0.5):
    """Return the amplitude of each channel's sine in one second of sound; real if in phase."""
    first = round(start * sample_rate)
    times = np.arange(first, first + sample_rate) / sample_rate
    hz = 440 + 110 * np.arange(sound.channels)[:, None]
    waves = np.exp(-2j * np.pi * hz * (times - sound.start))
    return 2j * (waves * samples[first : first + sample_rate]).mean(1)


@pytest.mark.parametrize(
    'file, changes, tolerance',
    [
        ('a.mp4', dict(codec='aac', sample_rate=44100, layout='stereo', channels=2), 0.01),
        ('b.mp4', dict(codec='aac', sample_rate=96000, layout='5.1', channels=6), 0.01),
        ('c.mkv', dict(codec='flac', sample_rate=96000, layout='5.1', channels=6), 1e-3),
        ('d.mkv', dict(codec='flac', sample_rate=32000, format='s16'), 1e-3),
        ('e.mkv', dict(codec='pcm_s16le', sample_rate=8000, layout='stereo', channels=2), 1e-3),
        ('f.mkv', dict(codec='pcm_u8', sample_rate=48000), 1e-3),
        ('g.mp4', dict(codec='libmp3lame', sample_rate=22050), 0.02),  # LAME scales by 0.95
        ('h.webm', dict(codec='libopus', sample_rate=48000, layout='stereo', channels=2), 0.01),
    ],
)
def test_sound_is_the_mean_of_its_channels_at_its_time(file, changes, tolerance, media, tmp_path):
    if changes['codec'] == 'flac' or 'pcm' in changes['codec']:
        changes = {'format': 's16', **changes}
    sound = media.Sound(seconds=2.0, **changes)
    path = media.write(tmp_path / file, None, sound)
    samples, seconds = audio.read_audio(path, 32000, 3.0)
    assert samples.shape == (96000,) and samples.dtype == np.float32
    assert seconds == pytest.approx(2.0, abs=0.06)
    found = tones(samples, sound, 32000)
    if sound.codec == 'aac' and sound.channels == 6:
        found[3] = 0.05  # AAC's low-frequency channel does not carry the 770 Hz of its sine
    np.testing.assert_allclose(found, 0.3 / sound.channels, atol=tolerance)
    assert not samples[int(2.1 * 32000) :].any()


def test_long_sound_is_cut_and_its_length_is_returned(media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', None, media.Sound(seconds=5.0))
    samples, seconds = audio.read_audio(path, 16000, 2.0)
    assert samples.shape == (32000,)
    assert seconds == pytest.approx(5.0, abs=0.1)
    assert abs(tones(samples, media.Sound(), 16000)[0] - 0.3) < 0.01


def test_sound_that_starts_late(media, tmp_path):
    sound = media.Sound(seconds=2.0, start=1.0)
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=3), sound)
    samples, _ = audio.read_audio(path, 32000, 3.0)
    assert np.abs(samples[:31000]).max() < 1e-3
    assert abs(tones(samples, sound, 32000, start=1.5)[0] - 0.3) < 0.01


def test_files_that_cannot_be_used(media, tmp_path):
    whole = media.write(tmp_path / 'whole.mp4', media.Picture(seconds=6), media.Sound(seconds=6))
    silent = media.write(tmp_path / 'silent.mp4', media.Picture(), None)
    blind = media.write(tmp_path / 'blind.mp4', None, media.Sound())
    front = media.write(
        tmp_path / 'front.mp4',
        media.Picture(seconds=6),
        media.Sound(seconds=6),
        options={'movflags': 'faststart'},
    )
    content = {
        'empty': b'',
        'text': b'There is no music in here.\n' * 50,
        'cut': whole.read_bytes()[: whole.stat().st_size // 2],
        'cut after the index': front.read_bytes()[: front.stat().st_size * 6 // 10],
    }
    for name, data in content.items():
        (tmp_path / f'{name}.mp4').write_bytes(data)
    reasons = {}
    for name in ('missing', *content, 'silent', 'blind'):
        path = tmp_path / f'{name}.mp4'
        with pytest.raises(video.MediaError) as caught:
            video.read_frames(path, [1.0, 5.0], 16)
            audio.read_audio(path, 32000, 6.0)
        reasons[name] = caught.value.reason
    assert reasons['missing'] == 'the file does not exist'
    assert reasons['empty'] == 'the file is empty'
    assert reasons['text'].startswith('the file is not a video')
    assert 'cut off' in reasons['cut'] and 'cut off' in reasons['cut after the index']
    assert reasons['silent'] == 'it has no sound'
    assert reasons['blind'] == 'it has no picture'
    assert silent.exists() and blind.exists()


def test_damaged_data_in_the_middle_is_skipped(media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=6), media.Sound(seconds=6))
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    pictures, mask, _ = video.read_frames(path, [0.5, 5.5], 16)
    samples, _ = audio.read_audio(path, 32000, 6.0)
    assert mask.all() and pictures.any() and samples.any()


BFRAMES = (('bf', '3'), ('b-pyramid', 'normal'))


@pytest.mark.parametrize('count', [1, 2, 3])
def test_a_still_over_a_song_is_shown_until_the_song_ends(count, media, tmp_path):
    """The decoder gives the last pictures only when it is told that no more will come."""
    still = media.Picture(seconds=count / 10, options=BFRAMES, matrix=MATRICES['quarter'])
    path = media.write(tmp_path / 'a.mp4', still, media.Sound(seconds=7))
    frames, mask, shape = video.read_segment_frames(path, 5, 2.0, 16)
    assert mask.tolist() == [True] * 4 + [False]  # the fifth segment begins after the sound
    assert shape.tolist() == [64, 48]  # upright
    expected = video.read_frames(path, [(count - 1) / 10], 16)[0][0]
    np.testing.assert_array_equal(frames, [expected] * 4 + [np.zeros_like(expected)])


def test_without_sound_a_picture_ends_where_it_ends(media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=0.2), None)
    _, mask, _ = video.read_segment_frames(path, 3, 2.0, 16)
    assert mask.tolist() == [True, False, False]


def float_sound(media, **changes):
    """Return a sound in float32 PCM with these samples in its channel."""

    class Changed(media.Sound):
        def samples(self):
            samples = super().samples()
            for place, value in changes.items():
                samples[:, int(place.removeprefix('at'))] = value
            return samples

    return Changed(seconds=1.0, codec='pcm_f32le', format='flt', sample_rate=44100)


BAD = {'NaN': np.nan, 'infinite': np.inf, 'minus infinite': -np.inf, 'huge': 1e30, 'double': 3e38}


@pytest.mark.parametrize('name', BAD)
@pytest.mark.parametrize('place', ['at0', 'at30000'])
@pytest.mark.filterwarnings('error')
def test_one_sample_that_is_no_sound_is_a_reason(name, place, media, tmp_path):
    sound = float_sound(media, **{place: BAD[name]})
    path = media.write(tmp_path / 'a.mov', media.Picture(seconds=1), sound)
    with pytest.raises(video.MediaError, match='not finite|too loud to be one'):
        audio.read_audio(path, 32000, 1.0)


def test_forty_times_full_scale_is_a_sound(media, tmp_path):
    path = media.write(tmp_path / 'a.mov', None, float_sound(media, at30000=-40.0))
    samples, _ = audio.read_audio(path, 44100, 1.0)
    assert samples[30000] == -40.0


def test_the_length_of_a_longer_sound_is_known_without_a_stream_length(media, tmp_path):
    path = media.write(tmp_path / 'a.mkv', media.Picture(seconds=9), media.Sound(seconds=9))
    assert audio.read_audio(path, 16000, 2.0)[1] == pytest.approx(9, abs=0.2)
