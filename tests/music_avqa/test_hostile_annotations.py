"""Damaged and hostile annotation files: a file is refused by name, or its bad rows are left out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from tests.data.small_set import SPLITS, read_json, row, write_rows, write_small_set
from tests.paths import ROOT

NAMES = (
    '../../etc/passwd', '/etc/passwd', '/abs', '..', '.', '', ' ', 'a/../b', 'videos/../../x', '~',
    'a\x00b', 'a\nb', '\ud800', 'a\udfff', '\\\\host\\share', 'C:\\x', 'x' * 201, 'x' * 100_000,
    '\u202egpj', 'file:/etc/passwd', 'http://example.org/x', 'concat:a|b', '-i', '%2e%2e%2f',
    '\ufeff',
)  # fmt: skip
VALUES = (
    None, True, 0, -1, 7.5, float('nan'), float('inf'), 10**400, '', 'yes', '[]', '["a"', '{}', [],
    [[]], {}, {'a': 1}, [None], ['violin', 1], '[1]', '["\\ud800"]', 'null', 'x' * 100_000,
    ['x' * 100_000], '[' * 100_000,
)  # fmt: skip
KEYS = (*row('v0'), 'question_id', 'unmatch_audio', 'split')


def good_rows(rng):
    return [row(f'v{rng.integers(3)}', question_id=i) for i in range(rng.integers(1, 20))]


def flipped(rng, data):
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] = rng.integers(256)
    return data


def cut(rng, data):
    start, end = np.sort(rng.integers(0, len(data), 2))
    return data[:start] + data[end:] if rng.integers(2) else data[:end]


def spliced(rng, data):
    place, start, end = rng.integers(len(data)), *np.sort(rng.integers(0, len(data), 2))
    return data[:place] + data[start:end] + data[place:]


def names_replaced(rng, data):
    rows = json.loads(data)
    for each in rows:
        each[str(rng.choice(['video_id', 'unmatch_audio']))] = NAMES[rng.integers(len(NAMES))]
    return json.dumps(rows).encode()


def values_replaced(rng, data):
    rows = json.loads(data)
    for each in rows:
        each[KEYS[rng.integers(len(KEYS))]] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(rows).encode()


def rows_replaced(rng, data):
    rows = json.loads(data)
    for index in rng.integers(0, len(rows), 3):
        rows[index] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(rows if rng.integers(4) else VALUES[rng.integers(len(VALUES))]).encode()


def nested(rng, data):
    """Nest a value as deep as the parser allows, and deeper."""
    depth = rng.integers(1, 1200) if rng.integers(8) else 100_000
    opening, closing = (b'[', b']') if rng.integers(2) else (b'{"a":', b'}')
    value = opening * depth + b'1' + closing * depth
    place = data.index(f'"{KEYS[rng.integers(5)]}": '.encode())
    place = data.index(b': ', place) + 2
    return data[:place] + value + b', "x": ' + data[place:] if rng.integers(8) else value


def keys_repeated(rng, data):
    key, value = KEYS[rng.integers(5)], VALUES[rng.integers(len(VALUES))]
    return data.replace(b'{', f'{{"{key}": {json.dumps(value)}, '.encode())


DAMAGE = (
    flipped, cut, spliced, names_replaced, values_replaced, rows_replaced, nested, keys_repeated,
)  # fmt: skip


def test_500_damaged_files(tmp_path):
    for split in SPLITS:
        (tmp_path / f'avqa-{split}.json').write_text(json.dumps([row('v0')]))
    path = tmp_path / 'avqa-train.json'
    refused, left_out, read = 0, 0, 0
    for index in range(500):
        rng = np.random.default_rng(index)
        data = json.dumps(good_rows(rng)).encode()
        path.write_bytes(DAMAGE[index % len(DAMAGE)](rng, bytearray(data)))
        try:
            annotations = music_avqa.read(tmp_path, 'plain')
        except StageError as error:
            assert str(error).startswith(f'{path} is not an annotation file: ')
            assert len(str(error)) < 1000
            refused += 1
            continue
        file = annotations.files[0]
        assert len(file.questions) + len(file.malformed) == len(json.loads(path.read_bytes()))
        for complaint in file.malformed:
            assert complaint.startswith('avqa-train.json, row ') and len(complaint) < 1000
            complaint.encode()
        for question in file.questions:
            for name in (question.video_id, question.sound_id):
                inside = music_avqa.video_path(tmp_path, name)
                assert Path(os.path.normpath(inside)) == inside
                assert inside.parent == tmp_path / 'videos'
        left_out += len(file.malformed)
        read += len(file.questions)
    assert min(refused, left_out, read) > 100


@pytest.mark.parametrize('depth', [10, 500, 900, 960, 990, 100_000])
def test_a_deeply_nested_value_is_shortened_in_the_message(depth, tmp_path):
    (tmp_path / 'a.json').write_text(
        json.dumps([row('v0'), row('v1')]).replace('"v0"', '[' * depth + ']' * depth)
    )
    try:
        questions, (complaint,) = music_avqa.read_questions(tmp_path / 'a.json', 'test')
        assert questions[0].video_id == 'v1' and 'row 0: video_id is [[[' in complaint
        assert len(complaint) < 200
    except StageError as error:
        assert 'recursion' in str(error)


# Prepares a data set, and prints all paths that Python opened and all files that were read.
SCRIPT = """
import json, sys
from pathlib import Path
opened, read = [], []
sys.addaudithook(lambda event, values: event == 'open' and opened.append(str(values[0])))

from amuse_jax.data import stage as prepare
from amuse_jax.media import guarded
from amuse_jax.config import default_config
class Watched(guarded.Reader):
    def read(self, function, path, *arguments):
        read.append(str(path))
        return super().read(function, path, *arguments)

if __name__ == '__main__':
    guarded.Reader = Watched
    config = default_config()
    config.data.update(root=sys.argv[1], segments=2, segment_seconds=1.0, image_size=16, workers=1)
    config.data.update(max_broken_share=1.0)
    opened.clear()
    prepare.run(config, Path(sys.argv[2]), {})
    print(json.dumps([sorted(set(opened)), sorted(set(read))]))
"""


def test_no_name_makes_prepare_read_outside_the_folder_of_videos(media, tmp_path):
    root, out = tmp_path / 'set', tmp_path / 'out'
    write_small_set(root, media, 2)
    out.mkdir()
    secret = (root / 'videos/v0.mp4').read_bytes()
    outside = [tmp_path / 'secret.mp4', root / 'secret.mp4', root / 'videos/deep/secret.mp4']
    outside[2].parent.mkdir()
    for path in outside:
        path.write_bytes(secret)
    names = [
        '../secret', '../../secret', str(outside[0]), str(outside[0].with_suffix('')),
        'deep/secret', './v0', f'file:{outside[0].with_suffix("")}', *NAMES,
    ]  # fmt: skip
    rows = [row(name) for name in names] + [row('v0', unmatch_audio=name) for name in names]
    write_rows(root, row('v0'), row('v1'), row('v1', 'no'), *rows)
    (tmp_path / 'script.py').write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, 'script.py', str(root), str(out)],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    opened, read = json.loads(done.stdout.splitlines()[-1])
    allowed = {str(root / f'videos/{name}.mp4') for name in ('v0', 'v1', *NAMES)}
    assert str(root / 'videos/v0.mp4') in read and set(read) <= allowed
    assert not set(map(str, outside)) & {os.path.realpath(path) for path in (*opened, *read)}
    inside = [path for path in opened if path.startswith(str(tmp_path))]
    assert any(path.startswith(str(out)) for path in inside)
    hashed = {path for path in inside if path in allowed}  # as bytes, to notice a later change
    others = map(Path, set(inside) - hashed)
    assert all(path.is_relative_to(out) or path.parent == root for path in others)
    left_out = read_json(out, 'malformed_rows')
    assert sum('is not the plain name' in complaint for complaint in left_out) > 2 * 12
    found = {entry['video_id'] for entry in read_json(out, 'videos')}
    found |= {entry['sound_id'] for entry in read_json(out, 'videos')}
    assert found == {'v0', 'v1'}
