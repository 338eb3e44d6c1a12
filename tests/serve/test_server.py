"""The server: what it refuses from clients that are no browser, and what it leaves behind."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from amuse_jax.errors import StageError
from amuse_jax.serve import server
from tests.paths import ROOT
from tests.serve.conftest import MAX_MEGABYTES
from tests.training import processes


def files(folder):
    return sorted(path for path in folder.rglob('*') if path.is_file())


def test_an_upload_that_is_too_large_leaves_nothing(site):
    address, uploads = site
    before = files(uploads)
    content = b'x' * (MAX_MEGABYTES * 10**6 + 1)
    answer = httpx.post(f'{address}gradio_api/upload', files={'files': ('a.mp4', content)})
    assert answer.status_code == 413 and files(uploads) == before


@pytest.mark.parametrize('name', ['../../../up.mp4', '/etc/up.mp4', '..', '<img src=x>.mp4', ''])
def test_an_upload_stays_in_its_folder(name, site):
    address, uploads = site
    before = files(uploads.parent)
    content = {'files': (name, b'some bytes')}
    answer = httpx.post(f'{address}gradio_api/upload', files=content)
    new = set(files(uploads.parent)) - set(before)
    if answer.is_success:
        assert {str(path) for path in new} <= set(answer.json())
    assert all(path.is_relative_to(uploads) and not set('<>') & set(path.name) for path in new)
    for path in new:
        path.unlink()


@pytest.mark.parametrize('path', ['/etc/passwd', f'{ROOT}/README.md', '/proc/self/environ'])
def test_no_other_file_is_sent(path, site):
    answer = httpx.get(f'{site[0]}gradio_api/file={path}')
    assert answer.status_code in (403, 404)


def test_no_other_file_is_watched(site):
    address, uploads = site
    config = httpx.get(f'{address}config').json()
    video = next(c['id'] for c in config['components'] if c['props'].get('elem_id') == 'video')
    watch = next(d for d in config['dependencies'] if [video, 'change'] in d['targets'])
    secret = ROOT / 'pyproject.toml'
    for path in (str(secret), f'{uploads}/../../{secret}'):
        data = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
        request = {'data': [data], 'fn_index': watch['id'], 'session_hash': 'somebody'}
        httpx.post(f'{address}gradio_api/queue/join', json=request).raise_for_status()
        events = httpx.get(
            f'{address}gradio_api/queue/data', params={'session_hash': 'somebody'}, timeout=20
        ).text
        last = [json.loads(line[6:]) for line in events.splitlines() if 'process_completed' in line]
        assert not last[0]['success'] and str(ROOT) not in events


def test_a_port_that_is_taken_is_one_sentence(model, tmp_path, site):
    port = int(site[0].rstrip('/').rsplit(':')[-1])
    with pytest.raises(StageError, match=f'^port {port} of 127.0.0.1 cannot be used: another'):
        with server.serve(model, str(tmp_path), port, 1, False):
            pass


def test_the_end_deletes_every_upload(model, tmp_path, monkeypatch):
    monkeypatch.setenv('GRADIO_SERVER_NAME', '0.0.0.0')
    monkeypatch.setenv('GRADIO_SHARE', 'True')
    monkeypatch.setenv('GRADIO_ALLOWED_PATHS', '/')
    monkeypatch.setenv('http_proxy', 'http://127.0.0.1:9')  # nothing answers there
    monkeypatch.setenv('no_proxy', 'example.org')
    with server.serve(model, str(tmp_path), processes.free_port(), 1, False) as (address, uploads):
        assert address.startswith('http://127.0.0.1:')
        httpx.post(f'{address}gradio_api/upload', files={'files': ('a.mp4', b'some bytes')})
        assert [path.name for path in files(uploads)] == ['a.mp4']
        assert uploads.parent.stat().st_mode & 0o077 == 0
        assert httpx.get(f'{address}gradio_api/file=/etc/passwd').status_code in (403, 404)
        host = socket.gethostbyname(socket.gethostname())
        if not host.startswith('127.'):
            with pytest.raises(httpx.ConnectError):
                httpx.get(address.replace('127.0.0.1', host), trust_env=False)
    assert not uploads.parent.exists()
    assert os.environ['GRADIO_SHARE'] == 'True' and os.environ['no_proxy'] == 'example.org'
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    command = [sys.executable, '-m', 'amuse_jax.serve', str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert f'amuse_jax: {tmp_path} holds no trained model' in done.stderr.splitlines()[-1]
    assert not list(Path(tmp_path).iterdir())
