"""A small server that speaks the part of the Hugging Face hub's protocol that models need.

It keeps one revision of each repository in memory: no history, no large-file storage, no accounts.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = '0123456789' * 4
FILE = re.compile(r'/([\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)')
API = re.compile(r'/api/models/([\w.-]+/[\w.-]+)(?:/(\w+)(?:/\w+)?)?(?:\?.*)?')


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    @property
    def repositories(self):
        """Content by path, for each repository's name."""
        return self.server.repositories

    def do_POST(self):
        body = self._read()
        if self.path == '/api/repos/create':
            name = '/'.join(filter(None, (body[0].get('organization'), body[0]['name'])))
            self.repositories.setdefault(name, {})
            self._reply({'url': f'{self.server.address}/{name}'})
        elif self.path == '/api/validate-yaml':
            self._reply({'errors': [], 'warnings': []})
        else:
            name, action = API.fullmatch(self.path).groups()
            if action == 'preupload':
                self._reply({'files': [_as_regular(file['path']) for file in body[0]['files']]})
            elif action == 'commit':
                files = [line['value'] for line in body if line['key'] == 'file']
                self.repositories[name] |= {
                    file['path']: base64.b64decode(file['content']) for file in files
                }
                url = f'{self.server.address}/{name}/commit/{COMMIT}'
                self._reply({'commitUrl': url, 'commitOid': COMMIT, 'success': True})

    def do_GET(self):
        if match := FILE.fullmatch(self.path):
            content = self.repositories[match[1]][match[3]]
            self._reply(content, {'ETag': f'"{_hash(content)}"', 'X-Repo-Commit': COMMIT})
        elif (match := API.fullmatch(self.path)) and match[1] in self.repositories:
            files = self.repositories[match[1]]
            if match[2] == 'tree':
                self._reply([_as_entry(path, content) for path, content in files.items()])
            else:
                self._reply({
                    'id': match[1],
                    'sha': COMMIT,
                    'siblings': [{'rfilename': path} for path in files],
                })  # fmt: skip
        else:
            self._reply({'error': 'Repository not found'}, status=404)

    do_HEAD = do_GET

    def _read(self):
        content = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        return [json.loads(line) for line in content.splitlines() if line.strip()]

    def _reply(self, content, headers=None, status=200):
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode(), {'Content-Type': 'application/json'}
        self.send_response(status)
        for name, value in {'Content-Length': str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        if status == 404:
            self.send_header('X-Error-Code', 'RepoNotFound')
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def _as_regular(path):
    return {'path': path, 'uploadMode': 'regular', 'shouldIgnore': False}


def _as_entry(path, content):
    return {'type': 'file', 'path': path, 'size': len(content), 'oid': _hash(content)}


def _hash(content):
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serve():
    """Yield the server's address, and the repositories: content by path, for each name."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.repositories = {}
    server.address = f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.address, server.repositories
    finally:
        server.shutdown()
        server.server_close()
