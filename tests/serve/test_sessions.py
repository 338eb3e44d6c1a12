"""Which videos stay in memory and on the disk while visitors come and go."""

import shutil
import threading
import time

import pytest

from amuse_jax.errors import VideoError
from amuse_jax.serve import sessions
from amuse_jax.serve.sessions import Sessions


def ignore(step):
    pass


@pytest.fixture
def folder(tmp_path, films):
    """A folder of uploads with five videos, each in a folder of its own as Gradio puts them."""
    uploads = tmp_path / 'uploads'
    for film in films[:5]:
        (uploads / film.stem).mkdir(parents=True)
    (uploads / 'examples').mkdir()
    shutil.copy(films[9], uploads / 'examples/performance-1.mp4')
    return uploads


@pytest.fixture
def visited(model, folder, films):
    """The sessions of that folder, where only the example was there from the beginning."""
    found = Sessions(model, folder, 10**9)
    for film in films[:5]:
        shutil.copy(film, folder / film.stem)
    return found


def upload(folder, index):
    return folder / f'film{index}/film{index}.mp4'


def test_a_video_is_watched_once_and_its_file_deleted_with_the_last_visitor(visited, folder):
    file = upload(folder, 0)
    steps = []
    for visitor in 'ab':
        assert visited.choose(visitor, str(file)) == file
    video = visited.watch('a', steps.append)
    assert steps == ['reading', 'listening', 'looking']
    assert visited.watch('b', steps.append) is video and visited.watch('a', steps.append) is video
    assert len(steps) == 3
    visited.end('a')
    assert file.exists() and visited.watch('a', ignore) is None
    visited.choose('b', str(upload(folder, 1)))
    assert not file.exists() and not file.parent.exists()


def test_several_visitors_of_one_file_decode_it_once(visited, folder):
    steps, videos = [], []
    for visitor in range(6):
        visited.choose(str(visitor), str(upload(folder, 0)))
    threads = [
        threading.Thread(target=lambda v=v: videos.append(visited.watch(str(v), steps.append)))
        for v in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(steps) == 3 and len(set(map(id, videos))) == 1 and len(videos) == 6


def test_examples_stay(visited, folder):
    example = folder / 'examples/performance-1.mp4'
    visited.choose('a', str(example))
    visited.watch('a', ignore)
    visited.end('a')
    assert example.exists()


@pytest.mark.parametrize('path', ['/etc/passwd', '{}/../outside.mp4', '{}', '{}/gone.mp4'])
def test_nothing_outside_the_uploads_is_watched_or_deleted(path, visited, folder):
    (folder.parent / 'outside.mp4').write_bytes(b'mine')
    (folder / 'link.mp4').symlink_to(folder.parent / 'outside.mp4')
    for each in (path.format(folder), str(folder / 'link.mp4')):
        assert visited.choose('a', each) is None
        assert visited.watch('a', ignore) is None
        visited.end('a')
    assert (folder.parent / 'outside.mp4').exists()


def test_few_videos_stay_in_memory(visited, folder, monkeypatch):
    monkeypatch.setattr(sessions, 'MOST_VIDEOS', 2)
    for index in range(3):
        visited.choose(str(index), str(upload(folder, index)))
        visited.watch(str(index), ignore)
    assert len(visited._videos) == 2
    steps = []
    visited.watch('0', steps.append)  # its file is still there, so it is watched again
    assert len(steps) == 3
    visited.watch('2', steps.append)
    assert len(steps) == 3


def test_a_broken_video_is_deleted_when_its_visitor_leaves(visited, folder):
    file = folder / 'noise.mp4'
    file.write_bytes(b'noise' * 1000)
    visited.choose('a', str(file))
    with pytest.raises(VideoError):
        visited.watch('a', ignore)
    visited.end('a')
    assert not file.exists() and folder.exists()


def test_idle_visitors_and_files_of_nobody_are_swept(visited, folder, monkeypatch):
    visited.choose('a', str(upload(folder, 0)))
    visited.watch('a', ignore)
    visited.sweep()
    assert upload(folder, 0).exists() and upload(folder, 1).exists()
    monkeypatch.setattr(sessions, 'IDLE_SECONDS', 0.0)
    visited.sweep()
    left = [path.name for path in folder.rglob('*') if path.is_file()]
    assert left == ['performance-1.mp4'] and not visited._videos


def test_files_of_nobody_have_a_limit_together(model, folder):
    visited = Sessions(model, folder, most_bytes=2500)
    files = [folder / f'upload-{index}' for index in range(4)]
    for file in files:
        file.write_bytes(bytes(1000))
        time.sleep(0.02)  # a kernel's clock may tick every 10 ms
    visited.choose('a', str(files[0]))
    visited.sweep()
    assert [file.exists() for file in files] == [True, False, True, True]
    visited.end('a')
    assert not files[0].exists()
