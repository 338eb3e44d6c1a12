import shutil
from pathlib import Path

import pytest

from amuse_jax.errors import StageError
from amuse_jax.music_avqa import video_files


@pytest.fixture
def touch(tmp_path):
    """touch(name, content) writes a file in `tmp_path` and returns its path."""

    def touch(name, content='x'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return touch


USUAL = [
    'videos/{}.mp4',
    'data/video/{}.mp4',
    'data/videos/{}.mp4',
    'video/{}.mp4',
    'MUSIC-AVQA-videos-Real/{}.mp4',
    'MUSIC-AVQA-videos-Synthetic/{}.mp4',
    'MUCIS-AVQA-videos-Synthetic/{}.mp4',
    'data/MUSIC-AVQA-videos-Real/{}.mp4',
    'videos/MUSIC-AVQA-videos-Real/{}.mp4',
    'MUSIC-AVQA-videos-Real/MUSIC-AVQA-videos-Real/part 1/{}.mp4',
    '{}.mp4',
    'data/{}.mp4',
    'data/video/{}.MP4',
]


@pytest.mark.parametrize('place', USUAL)
@pytest.mark.parametrize('name', ['00000093', '-a_#02_flip'])
def test_the_usual_places(place, name, touch, tmp_path):
    path = touch(place.format(name))
    touch('data/json/avqa-test.json')
    video_files.search(tmp_path)
    assert video_files.video_path(tmp_path, name) == path
    assert not video_files.video_path(tmp_path, 'another').exists()


def test_recorded_and_synthetic_videos_in_their_own_folders(touch, tmp_path):
    paths = [
        touch('MUSIC-AVQA-videos-Real/00000093.mp4'),
        touch('MUSIC-AVQA-videos-Synthetic/sa00007079.mp4'),
        touch('videos/l9w43Zpm12A.mp4'),
    ]
    video_files.search(tmp_path)
    assert [video_files.video_path(tmp_path, path.stem) for path in paths] == paths


@pytest.mark.parametrize(
    'setting', ['films,more', 'films , more', '{root}/films,more', 'more,films']
)
def test_the_setting_names_folders_and_all_folders_in_them(setting, touch, tmp_path):
    first, second = touch('films/2021/a.mp4'), touch('more/b.mp4')
    ignored = touch('videos/c.mp4')
    setting = setting.format(root=tmp_path)
    video_files.search(tmp_path, setting)
    assert video_files.video_path(tmp_path, 'a', setting) == first
    assert video_files.video_path(tmp_path, 'b', setting) == second
    assert video_files.video_path(tmp_path, 'c', setting) != ignored


def test_the_setting_may_name_the_home_folder(touch, tmp_path, monkeypatch):
    path = touch('home/films/a.mp4')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    (tmp_path / 'set').mkdir()
    assert video_files.video_path(tmp_path / 'set', 'a', ' ~/films') == path
    with pytest.raises(StageError, match='config.data.videos is .*expected a folder or file of'):
        video_files.search(tmp_path / 'set', 'gs://bucket/films')


def test_a_folder_that_does_not_exist_is_named(touch, tmp_path):
    touch('videos/a.mp4')
    with pytest.raises(StageError, match='data.videos names .*/nowhere, which is not a folder'):
        video_files.search(tmp_path, 'videos,nowhere')
    shutil.rmtree(tmp_path / 'videos')
    with pytest.raises(StageError, match='has no folder videos/, .*--config.data.videos=DIR'):
        video_files.search(tmp_path)


def test_an_id_that_ends_like_a_file(touch, tmp_path):
    path = touch('videos/a.mp4')
    assert video_files.video_path(tmp_path, 'a.mp4') == path
    other = touch('videos/a.mp4.mp4')
    video_files.search(tmp_path)
    assert video_files.video_path(tmp_path, 'a.mp4') == other
    assert video_files.video_path(tmp_path, 'a') == path


def test_links_are_followed_once(touch, tmp_path):
    path = touch('disk/real/a.mp4')
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos/real').symlink_to(tmp_path / 'disk/real')
    (tmp_path / 'disk/real/again').symlink_to(tmp_path / 'videos')
    found = video_files.video_path(tmp_path, 'a')
    assert found.samefile(path)


def test_files_that_appear_are_found_by_the_next_stage(touch, tmp_path):
    touch('data/video/a.mp4')
    video_files.search(tmp_path)
    assert not video_files.video_path(tmp_path, 'b').exists()
    path = touch('data/video/new/b.mp4')
    video_files.search(tmp_path)
    assert video_files.video_path(tmp_path, 'b') == path


def test_a_name_never_leaves_the_folders(tmp_path):
    assert video_files.video_path(tmp_path, 'a b#c') == tmp_path / 'videos/a b#c.mp4'
    assert video_files.video_path(Path('-x'), '-y') == Path('-x/videos/-y.mp4')
    for name in ('../a', '/a', '.', ''):
        with pytest.raises(ValueError):
            video_files.video_path(tmp_path, name)


def test_two_files_of_one_video(touch, tmp_path):
    first = touch('videos/a.mp4')
    touch('data/video/a.mp4')
    assert not video_files.describe_doubles(tmp_path)
    second = touch('data/video/a.mp4', 'longer')
    assert video_files.video_path(tmp_path, 'a') == first
    sentence = video_files.describe_doubles(tmp_path)
    assert (
        sentence.startswith('1 videos have') and str(second) in sentence and str(first) in sentence
    )
