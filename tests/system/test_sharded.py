import os
import signal
import sys

import pytest

from amuse_jax.system.files import write_atomically
from amuse_jax.system.sharded import map_shards
from tests.paths import ROOT
from tests.training import processes


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


# Works through twelve items in shards of four, and stops for good at the item that is given.
PROGRAM = """
import pathlib, sys, time
from amuse_jax.system import sharded

def work(items, path):
    with open(path, 'a') as file:
        for item in items:
            print(item, file=file, flush=True)
            print('wrote', item, flush=True)
            if str(item) == sys.argv[2]:
                time.sleep(3600)

sharded.map_shards(work, range(12), pathlib.Path(sys.argv[1]), suffix='.txt', shard_size=4,
                   workers=1, description='d')
"""


def numbers_in(paths):
    return [[int(line) for line in path.read_text().split()] for path in sorted(paths)]


def test_kill_and_start_again_gives_whole_shards(tmp_path):
    """The first kill is in the first shard, the second one in the last."""
    folder, shards = tmp_path / 'shards', [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    command = [sys.executable, '-c', PROGRAM, folder]
    options = dict(cwd=ROOT, env=processes.environment())
    for item in (1, 10):
        log = tmp_path / f'log{item}'
        process = processes.start([*command, str(item)], log, **options)
        try:
            processes.wait_until(lambda: f'wrote {item}\n' in log.read_text(), [process])  # noqa: B023
        finally:
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL
        assert numbers_in(folder.glob('0*')) == shards[: item // 4]
        assert numbers_in(folder.glob('.tmp-*')) == [list(range(item // 4 * 4, item + 1))]
    log = tmp_path / 'log'
    processes.wait_for_exit([processes.start([*command, 'none'], log, **options)])
    assert 'wrote 7\n' not in log.read_text() and 'wrote 8\n' in log.read_text()
    assert numbers_in(folder.glob('0*')) == shards and not list(folder.glob('.tmp-*'))
