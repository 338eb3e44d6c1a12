import numpy as np
import pytest

from amuse_jax.data import records, video_arrays
from amuse_jax.media import guarded, video
from amuse_jax.media.log_mel import LogMel
from tests.data.small_set import settings


@pytest.fixture
def read(tmp_path):
    """read(picture, sound) reads three segments of two seconds from these files."""
    config = settings(tmp_path)
    log_mel = LogMel.from_settings(config)
    limits = guarded.Limits.from_settings(config.data)
    yield lambda picture, sound: video_arrays.read_video(limits, picture, sound, 16, log_mel)
    guarded.close_readers()


def test_arrays_of_a_video_whose_sound_ends_early(read, media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=6), media.Sound(seconds=3))
    found = read(path, path)
    assert found['frames'].shape == (3, 16, 16, 3) and found['frames'].dtype == np.uint8
    assert found['log_mel'].shape == (3, 201, 64) and found['log_mel'].dtype == np.float16
    assert found['frame_mask'].tolist() == [True, True, True]
    assert found['audio_mask'].tolist() == [True, True, False]
    assert found['seconds'] == pytest.approx(3, abs=0.1)


def test_the_sound_may_be_in_another_file(read, media, tmp_path):
    picture = media.write(tmp_path / 'a.mp4', media.Picture(seconds=6), None)
    sound = media.write(tmp_path / 'b.mp4', media.Picture(seconds=6, fps=5), media.Sound(seconds=6))
    found = read(picture, sound)
    expected = read(sound, sound)
    np.testing.assert_array_equal(found['log_mel'], expected['log_mel'])
    assert (found['frames'] != expected['frames']).any()
    with pytest.raises(video.MediaError, match='^it has no sound$'):
        read(picture, picture)
    with pytest.raises(video.MediaError, match=r'^it has no sound \(the sound of a\)$'):
        read(sound, picture)


def test_a_video_that_begins_after_the_segments_is_refused(read, media, tmp_path):
    picture = media.Picture(seconds=2, start=7.0)
    path = media.write(tmp_path / 'a.mp4', picture, media.Sound(seconds=9))
    with pytest.raises(video.MediaError, match='^it shows nothing in its first 6 s$'):
        read(path, path)


def test_a_segment_with_a_picture_or_a_sound_exists(read, media, tmp_path):
    late = media.write(
        tmp_path / 'a.mp4', media.Picture(seconds=2, start=4), media.Sound(seconds=1)
    )
    found = read(late, late)
    assert found['frame_mask'].tolist() == [False, False, True]
    assert found['audio_mask'].tolist() == [True, False, False]
    assert records.segment_mask(found).tolist() == [True, False, True]


def test_the_last_picture_is_held_while_the_sound_goes_on(read, media, tmp_path):
    path = media.write(tmp_path / 'a.mp4', media.Picture(seconds=1), media.Sound(seconds=3.5))
    found = read(path, path)
    assert found['frame_mask'].tolist() == found['audio_mask'].tolist() == [True, True, False]
    np.testing.assert_array_equal(found['frames'][1], found['frames'][0])
    assert found['frames'][1].any() and found['shape'] == [48, 64]
