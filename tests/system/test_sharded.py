import os
import signal
import subprocess
import sys
import time

import pytest

from amuse_jax.system.files import write_atomically
from amuse_jax.system.sharded import map_shards


def _double(items, path):
    path.write_text(''.join(f'{2 * item}\n' for item in items))


def _die_on_five(items, path):
    if 5 in items:
        os._exit(3)
    _double(items, path)


@pytest.mark.parametrize('workers', [1, 2])
def test_every_item_once_in_order(tmp_path, workers):
    paths = map_shards(
        _double, range(7), tmp_path, suffix='.txt', shard_size=3, workers=workers, description='d'
    )
    assert [p.name for p in paths] == [f'0000{i}-of-00003.txt' for i in range(3)]
    assert ''.join(p.read_text() for p in paths) == ''.join(f'{2 * i}\n' for i in range(7))


def test_finished_shards_are_kept_and_leftovers_removed(tmp_path):
    arguments = dict(suffix='.txt', shard_size=3, workers=1, description='d')
    paths = map_shards(_double, range(7), tmp_path, **arguments)
    paths[0].write_text('kept')
    paths[1].unlink()
    (tmp_path / '.tmp-1-x.txt').write_text('half')
    map_shards(_double, range(7), tmp_path, **arguments)
    assert paths[0].read_text() == 'kept'
    assert paths[1].read_text() == '6\n8\n10\n'
    assert not list(tmp_path.glob('.tmp-*'))


def test_a_failing_write_leaves_nothing(tmp_path):
    def fail(path):
        path.write_text('half')
        raise ValueError('no')

    with pytest.raises(ValueError, match='no'):
        write_atomically(tmp_path / 'whole', fail)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_worker_is_reported_and_the_rest_can_be_finished(tmp_path):
    arguments = dict(suffix='.txt', shard_size=1, description='d')
    with pytest.raises(RuntimeError, match='a worker process died'):
        map_shards(_die_on_five, range(8), tmp_path, workers=2, **arguments)
    paths = map_shards(_double, range(8), tmp_path, workers=1, **arguments)
    assert [int(p.read_text()) for p in paths] == [2 * i for i in range(8)]


SLOW = """
import pathlib, sys, time
from amuse_jax.system import sharded
def work(items, path):
    for item in items:
        with open(path, 'a') as file:
            file.write(f'{item}\\n')
        time.sleep(0.05)
sharded.map_shards(work, range(40), pathlib.Path(sys.argv[1]), suffix='.txt', shard_size=4,
                  workers=1, description='d')
"""


def test_kill_and_start_again_gives_whole_shards(tmp_path):
    for _ in range(2):
        process = subprocess.Popen([sys.executable, '-c', SLOW, str(tmp_path)])
        time.sleep(0.9)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in tmp_path.glob('0*'):
            assert len(path.read_text().split()) == 4
    assert subprocess.run([sys.executable, '-c', SLOW, str(tmp_path)]).returncode == 0
    lines = ''.join(p.read_text() for p in sorted(tmp_path.glob('0*'))).split()
    assert lines == [str(i) for i in range(40)]
