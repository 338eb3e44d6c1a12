import json
import os
import signal
import subprocess
import sys

import pytest

from amuse_jax.errors import PartDone
from amuse_jax.system import gpus
from amuse_jax.system.files import write_atomically
from amuse_jax.system.sharded import map_shards, part_slice
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


# The work writes what its process sees, and waits until all eight processes have a file: it ends
# only if each of them gets one.
DEVICES = """
import json, os, pathlib, sys, time
from amuse_jax.system import gpus, sharded

def work(items, path):
    seen = {name: os.environ.get(name) for name in (gpus.VISIBLE, 'XLA_PYTHON_CLIENT_PREALLOCATE')}
    mine = path.parent.parent / 'pids' / str(os.getpid())
    mine.touch()
    deadline = time.monotonic() + 120
    while len(list(mine.parent.iterdir())) < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    path.write_text(json.dumps(seen | {'pid': os.getpid(), 'torch': 'torch' in sys.modules}))

if __name__ == '__main__':
    folder = pathlib.Path(sys.argv[1])
    (folder / 'pids').mkdir()
    devices = gpus.visible(root=pathlib.Path(sys.argv[2]))
    sharded.map_shards(work, range(16), folder / 'shards', suffix='.json', shard_size=1, workers=1,
                       description='d', devices=devices)
    print(json.dumps(devices))
"""


@pytest.mark.parametrize(
    ('variable', 'expected'),
    [
        (None, ['0', '1', '2', '3', '4', '5', '6', '7']),
        ('7,6,5,4,GPU-a,GPU-b,MIG-c,3', ['7', '6', '5', '4', 'GPU-a', 'GPU-b', 'MIG-c', '3']),
    ],
)
def test_each_of_eight_devices_has_one_worker_that_sees_no_other(tmp_path, variable, expected):
    (tmp_path / 'dev').mkdir()
    for name in [*(f'nvidia{number}' for number in range(8)), 'nvidiactl', 'nvidia-uvm', 'null']:
        (tmp_path / 'dev' / name).touch()
    (tmp_path / 'program.py').write_text(DEVICES)
    environment = processes.environment()
    environment.pop('CUDA_VISIBLE_DEVICES', None)
    environment |= {'CUDA_VISIBLE_DEVICES': variable} if variable else {}
    command = [sys.executable, tmp_path / 'program.py', tmp_path, tmp_path]
    text = subprocess.check_output(command, cwd=ROOT, env=environment, text=True, timeout=300)
    assert json.loads(text) == expected
    seen = [json.loads(path.read_text()) for path in (tmp_path / 'shards').glob('*.json')]
    assert len(seen) == 16
    of_process = {each['pid']: each['CUDA_VISIBLE_DEVICES'] for each in seen}
    assert sorted(of_process.values()) == sorted(expected)  # eight processes, one device each
    assert all(each['CUDA_VISIBLE_DEVICES'] == of_process[each['pid']] for each in seen)
    assert all(each['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false' for each in seen)
    assert not any(each['torch'] for each in seen)  # the device was chosen before PyTorch started


def test_hidden_devices_are_not_used(tmp_path):
    (tmp_path / 'dev').mkdir()
    assert gpus.visible({}, tmp_path) == []
    (tmp_path / 'dev/nvidia0').touch()
    assert gpus.visible({}, tmp_path) == ['0']
    for hidden in ('', '-1'):
        assert gpus.visible({'CUDA_VISIBLE_DEVICES': hidden}, tmp_path) == []
    assert gpus.visible({'CUDA_VISIBLE_DEVICES': '2,-1,3'}, tmp_path) == ['2']


def test_parts_write_every_shard_once(tmp_path):
    arguments = dict(suffix='.txt', shard_size=2, workers=1, description='d')
    (tmp_path / '.tmp-1-x.txt').write_text('half')  # another part is writing it
    for number in (3, 1, 2):
        with pytest.raises(PartDone, match=f'd: part {number}/3: [12] of 5 shards'):
            map_shards(_double, range(9), tmp_path, part=f'{number}/3', **arguments)
        assert (tmp_path / '.tmp-1-x.txt').exists()
    assert len(list(tmp_path.glob('0*'))) == 5
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob('0*')}
    paths = map_shards(_double, range(9), tmp_path, **arguments)
    assert before == {path: path.stat().st_mtime_ns for path in paths}
    assert numbers_in(paths) == [[0, 2], [4, 6], [8, 10], [12, 14], [16]]


@pytest.mark.parametrize('part', ['0/3', '4/3', '3', 'a/b', '1/0', '-1/3'])
def test_a_part_that_does_not_exist_is_refused(part):
    with pytest.raises(ValueError, match='expected K/N'):
        part_slice(part)
