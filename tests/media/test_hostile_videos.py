"""The stage prepare on randomly damaged videos: each can be set aside, but harms no other video."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from amuse_jax.data import records
from tests.data.small_set import read_json, row, write_rows
from tests.paths import ROOT

# Prepares a clean data set and then one with damaged videos. Prints its memory after each, and the
# largest memory of a child process, in kB.
SCRIPT = """
import json, resource, sys
from pathlib import Path
from amuse_jax.data import stage as prepare
from amuse_jax.config import default_config
def resident():
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmRSS'))

def run(root, folder):
    config = default_config()
    config.data.update(root=root, segments=2, segment_seconds=1.0, image_size=16, workers=1)
    config.data.update(max_broken_share=1.0, read_seconds=60.0, read_gigabytes=1.0)
    Path(folder).mkdir()
    prepare.run(config, Path(folder), {})
    return resident()

if __name__ == '__main__':
    kilobytes = [run(*sys.argv[1:3]), run(*sys.argv[3:5])]
    print(json.dumps(kilobytes + [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def flipped(data, other, rng):
    """Change up to 64 bytes anywhere."""
    for place in rng.integers(0, len(data), rng.integers(1, 65)):
        data[place] = rng.integers(256)
    return data


def flipped_in_the_index(data, other, rng):
    """Flip bits in the index, the box `moov`, which says where and when every frame is."""
    start = data.index(b'moov')
    end = data.index(b'mdat') if data.index(b'mdat') > start else len(data)
    for place in rng.integers(start, end, rng.integers(1, 17)):
        data[place] ^= 1 << rng.integers(8)
    return data


EXTREMES = (b'\xff\xff\xff\xff', b'\x7f\xff\xff\xff', b'\x80\0\0\0', b'\0\0\0\0')


def number_replaced(data, other, rng):
    """Write an extreme number into the index, which holds counts, sizes, rates and durations."""
    place = rng.integers(data.index(b'moov'), len(data) - 4)
    data[place : place + 4] = EXTREMES[rng.integers(len(EXTREMES))]
    return data


def cut(data, other, rng):
    return data[: rng.integers(1, len(data))]


def hole(data, other, rng):
    start, end = np.sort(rng.integers(0, len(data), 2))
    return data[:start] + data[end:]


def spliced(data, other, rng):
    """Put a piece of another video into this one."""
    place = rng.integers(len(data))
    start, end = np.sort(rng.integers(0, len(other), 2))
    return data[:place] + other[start:end] + data[place + rng.integers(2) * (end - start) :]


def zeroed(data, other, rng):
    start, end = np.sort(rng.integers(0, len(data), 2))
    data[start:end] = bytes(end - start)
    return data


DAMAGE = (flipped, flipped_in_the_index, number_replaced, cut, hole, spliced, zeroed)


def write_good(root, media):
    """Write four videos: as FFmpeg does by default, index first, in fragments, and in MPEG-4."""
    (root / 'videos').mkdir(parents=True)
    movflags = ('', 'faststart', 'frag_keyframe+empty_moov', '')
    codecs = ('libx264', 'libx264', 'libx264', 'mpeg4')
    for index, (flags, codec) in enumerate(zip(movflags, codecs)):
        picture = media.Picture(seconds=2, fps=8 + index, group=5, codec=codec)
        path = root / f'videos/good{index}.mp4'
        media.write(path, picture, media.Sound(seconds=2), options=flags and {'movflags': flags})
    names = sorted(path.stem for path in (root / 'videos').iterdir())
    write_rows(root, *map(row, names))
    return names


def write_hostile(root, clean, good, count):
    """Write a data set of the good videos of `clean` and of `count` damaged ones."""
    (root / 'videos').mkdir(parents=True)
    content = [(clean / f'videos/{name}.mp4').read_bytes() for name in good]
    for name, data in zip(good, content):
        (root / f'videos/{name}.mp4').write_bytes(data)
    names = []
    for index in range(count):
        rng = np.random.default_rng(index)
        damage = DAMAGE[index % len(DAMAGE)]
        data, other = (content[each] for each in rng.choice(len(content), 2, replace=False))
        # The first letters sort the good videos between the damaged ones.
        names.append(f'{"agnz"[index % 4]}{index:03d} {damage.__name__}')
        (root / f'videos/{names[-1]}.mp4').write_bytes(damage(bytearray(data), other, rng))
    write_rows(root, *map(row, [*good, *names]))
    return names


def records_of(folder):
    reader = records.RecordReader(folder / 'records')
    names = [entry['video_id'] for entry in reader.videos]
    return {name: records.encode(reader[index]) for index, name in enumerate(names)}


def check(count, media, folder):
    good = write_good(folder / 'clean', media)
    damaged = write_hostile(folder / 'hostile', folder / 'clean', good, count)
    (folder / 'script.py').write_text(SCRIPT)
    arguments = ['script.py', 'clean', 'clean out', 'hostile', 'hostile out']
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr, done.stderr  # no reader ended with an error
    before, after, largest_reader = json.loads(done.stdout.splitlines()[-1])
    assert after - before < 64e3 and largest_reader < 500e3

    expected, found = records_of(folder / 'clean out'), records_of(folder / 'hostile out')
    assert {name: found.pop(name) for name in good} == expected
    quarantine = read_json(folder / 'hostile out', 'quarantine')
    reasons = {entry['video_id']: entry['reason'] for entry in quarantine}
    assert sorted([*found, *reasons]) == sorted(damaged)
    assert all(reasons.values())
    # Some of the damaged videos can be read, and others cannot.
    assert min(len(found), len(reasons)) > count / 10


def test_40_damaged_videos(media, tmp_path):
    check(40, media, tmp_path)


@pytest.mark.slow
def test_500_damaged_videos(media, tmp_path):
    check(500, media, tmp_path)
