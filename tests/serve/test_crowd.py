"""Slow tests of the page in a browser: hostile uploads, and ten visitors at once."""

import os
import socket
import threading
import time

import httpx
import pytest

from amuse_jax.music_avqa.vocabulary import INSTRUMENTS
from tests.serve.conftest import is_answer
from tests.serve.test_page import QUESTION, uploads, wait_for

pytestmark = pytest.mark.slow

PLAYLIST = '#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n'
CONCAT = "ffconcat version 1.0\nfile '{}'\n"


def hostile_files(folder, film):
    """Write files that are no videos, or videos with names that a page must not believe."""
    whole = film.read_bytes()
    contents = {
        'playlist.mp4': PLAYLIST.format(film).encode(),
        'list.mp4': CONCAT.format(film).encode(),
        'session.mp4': b'v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n',
        'empty.mp4': b'',
        'random.mp4': os.urandom(200_000),
        'half.mp4': whole[: len(whole) // 2],
        'page.mp4': b'<html><script>alert(1)</script></html>',
        'picture.svg.mp4': b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        'blank.webm': bytes(500_000),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_no_upload_stops_the_server_or_shows_a_path(visit, films, site, tmp_path):
    visitor = visit()
    for path in hostile_files(tmp_path, films[0]):
        visitor.upload(path)
        told = visitor.wait_for_failure()
        assert told.startswith('This video cannot be used: '), (path.name, told)
        assert '/' not in told and path.name not in told and 'Error' not in told
        visitor.clear()
        visitor.page.wait_for_selector('#status .failure', state='detached')
    assert not uploads(site[1])
    name = tmp_path / '<img src=x onerror=alert(1)> ${alert(1)} {{x}} "\'&.mp4'
    name.write_bytes(films[0].read_bytes())
    visitor.upload(name)
    visitor.wait_until_ready()
    visitor.start_question(QUESTION)
    assert is_answer(visitor.wait_for_answer(QUESTION))
    assert 'onerror' not in visitor.page.inner_text('body')
    assert not visitor.dialogs and not visitor.faults


def test_two_gigabytes_are_refused_at_once(visit, films, site, tmp_path):
    """The file is sparse, so it needs no disk. The browser refuses it before it is sent."""
    visitor = visit()
    large = tmp_path / 'large.mp4'
    with large.open('wb') as file:
        file.truncate(2 * 10**9)
    start = time.monotonic()
    visitor.upload(large)
    told = visitor.page.wait_for_selector('.toast-body').inner_text()
    assert 'size' in told and time.monotonic() - start < 20
    with large.open('rb') as file:  # and so does the server
        try:
            answer = httpx.post(f'{site[0]}gradio_api/upload', files={'files': file}, timeout=60)
            assert answer.status_code == 413
        except httpx.TransportError:  # it closed the connection in the middle of the file
            pass
    assert not uploads(site[1])
    visitor.upload(films[0])
    visitor.wait_until_ready()


def test_ten_visitors_at_once(visit, films, site):
    visitors = [visit() for _ in range(10)]
    for visitor, film in zip(visitors, films):
        visitor.upload(film)
    for visitor in visitors:
        visitor.wait_until_ready()
    questions = [f'How many sounding {name} in the video?' for name in INSTRUMENTS[:10]]
    for visitor, question in zip(visitors, questions):
        visitor.start_question(question)
    for visitor, question in zip(visitors, questions):
        assert is_answer(visitor.wait_for_answer(question))
        assert visitor.page.locator('figure.evidence img').count() == 1
    assert len(uploads(site[1])) == 10
    for visitor in visitors:
        visitor.leave()
    wait_for(lambda: not uploads(site[1]), 60)


def test_uploads_that_break_off_leave_a_server_that_answers(visit, films, site):
    """Thirty clients send the beginning of a video and hang up."""
    head = (
        b'POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n'
        b'Content-Type: multipart/form-data; boundary=b\r\n\r\n'
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\nxxxx'
    )
    host, port = site[0].removeprefix('http://').rstrip('/').split(':')

    def hang_up():
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(head)

    threads = [threading.Thread(target=hang_up) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    visitor = visit()
    visitor.upload(films[2])
    visitor.wait_until_ready()
