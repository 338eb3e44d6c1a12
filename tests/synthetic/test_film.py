"""Tests of the rendered video and stem files."""

import av
import numpy as np
import pytest
import soundfile

from amuse_jax.synthetic import film
from amuse_jax.synthetic.score.score import Note, Performer, Score

SECONDS = 6.0
SIZE = dict(width=192, height=108, fps=10)


def make_score():
    notes = tuple(Note(1.0 + 0.4 * i, 0.38, 64 + i % 5, 100) for i in range(10))
    sounding = Performer('violin', 'violin', True, 0.3, 'left', -18.0, ((1.0, 5.0),), notes, 5)
    silent = Performer('piano', 'piano', True, 0.7, 'right', 0.0, (), (), 6)
    hidden = Performer('flute', 'flute', False, 0.5, 'middle', -24.0, ((1.0, 5.0),), notes, 7)
    performers = (sounding, silent, hidden)
    return Score('syn00000001', 9, SECONDS, 'outdoor', (0.5, 3.0), ((0.0, 150.0),), performers)


@pytest.fixture(scope='module')
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp('film')
    truth = film.write(make_score(), folder / 'a.mp4', folder / 'a.flac', **SIZE)
    return folder, truth


def read_pictures(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


def read_sound(path):
    with av.open(str(path)) as container:
        return np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])


def test_the_video_has_standard_streams(rendered):
    with av.open(str(rendered[0] / 'a.mp4')) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ('h264', 'aac')
        assert video.codec_context.pix_fmt == 'yuv420p'
        assert (video.width, video.height, video.average_rate) == (192, 108, 10)
        assert float(video.duration * video.time_base) == pytest.approx(SECONDS, abs=0.01)
        assert float(audio.duration * audio.time_base) == pytest.approx(SECONDS, abs=0.07)
        assert video.frames == 60
        keys = [p.pts * p.time_base for p in container.demux(video) if p.is_keyframe]
        assert [float(key) for key in keys] == [0, 1, 2, 3, 4, 5]


def test_the_stems_add_up_to_the_sound_track(rendered):
    track = read_sound(rendered[0] / 'a.mp4')
    stems, rate = soundfile.read(rendered[0] / 'a.flac', dtype='float32')
    assert stems.shape == (SECONDS * rate, 3)  # violin, flute, voice
    total = stems.sum(1)
    both = slice(1000, min(len(track), len(total)) - 1000)
    assert np.corrcoef(track[both], total[both])[0, 1] > 0.98
    assert np.std(track[both]) == pytest.approx(np.std(total[both]), rel=0.05)


def test_boxes_are_given_for_segments_and_extra_times(rendered):
    truth = rendered[1]
    assert truth['seconds'][:10] == pytest.approx(0.3 + 0.6 * np.arange(10))
    assert len(truth['seconds']) == len(truth['boxes']) == 14
    for boxes in truth['boxes']:
        named = {(name, index) for *_, name, index in boxes}
        assert named == {('violin', 0), ('player', 0), ('piano', 1), ('player', 1)}


def test_frames_change_while_someone_sounds(rendered):
    pictures = read_pictures(rendered[0] / 'a.mp4').astype(int)
    moved = np.abs(np.diff(pictures, axis=0)).mean((1, 2, 3))
    assert moved[11:48].mean() > 5 * moved[51:58].mean()


def test_the_same_score_gives_the_same_files(rendered, tmp_path):
    folder, truth = rendered
    again = film.write(make_score(), tmp_path / 'b.mp4', tmp_path / 'b.flac', **SIZE)
    assert again == truth
    for ending in ('mp4', 'flac'):
        assert (tmp_path / f'b.{ending}').read_bytes() == (folder / f'a.{ending}').read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['b.flac', 'b.mp4']
