"""Training in several processes that know each other, as on several hosts, beside one process."""

import json
import runpy
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.training import loop, pace

HERE = Path(__file__).parent
EXACT = dict(rtol=1e-5, atol=1e-6)  # sums are added up in another order


def rows_of(folder):
    """The lines of metrics without what depends on the clock."""
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{name: row[name] for name in row if name not in pace.CLOCK} for row in rows]


def check_same(folder, expected):
    found, wanted = rows_of(folder), rows_of(expected)
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    for each, other in zip(found, wanted):
        np.testing.assert_allclose(list(each.values()), list(other.values()), **EXACT)
    found, wanted = (np.load(each / 'params.npz') for each in (folder, expected))
    assert found.files == wanted.files
    for name in found.files:
        np.testing.assert_allclose(found[name], wanted[name], **EXACT, err_msg=name)


def ends(processes, seconds=300):
    """Exit statuses, with what the processes said where one is not 0."""
    statuses = [process.wait(seconds) for process in processes]
    assert not any(statuses), (statuses, said(processes))
    return statuses


def said(processes):
    """The logs of processes that `start_toy` started."""
    folder = Path(processes[0].args[2])
    return {path.name: path.read_text()[-3000:] for path in folder.glob('log*')}


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """The folder of an undisturbed run on one device."""
    folder = tmp_path_factory.mktemp('alone')
    toy = runpy.run_path(str(HERE / 'toy_job.py'))
    np.savez(folder / 'params.npz', **loop.fit(*toy['job'](folder)))
    return folder


@pytest.mark.parametrize(
    ('processes', 'devices'), [(2, 1), pytest.param(4, 1, marks=pytest.mark.slow)]
)
def test_hosts_train_as_one(start_toy, alone, tmp_path, processes, devices):
    started = start_toy(tmp_path / 'toy', processes, devices)
    ends(started)
    check_same(tmp_path / 'toy', alone)


def test_two_folders_are_saved_at_once_and_a_notice_is_heard(start_toy, tmp_path):
    """Hosts that met crosswise, one in either folder, would wait for ever. The numbers of what is
    saved have nothing to do with those by which the hosts agree where to stop."""
    folder = tmp_path / 'two'
    ends(started := start_toy(folder, 2, script='two_folders.py'), seconds=120)
    assert all('noticed' in text for text in said(started).values())
    for name, newest in (('checkpoints', ['29', '30']), ('best', ['30'])):
        assert sorted(path.name for path in (folder / name).glob('[0-9]*')) == newest


def test_a_run_goes_on_with_other_devices_and_hosts(start_toy, alone, tmp_path):
    """Stopped by SIGTERM twice: four devices, then two hosts, then two devices of one host."""
    folder = tmp_path / 'toy'
    stops = [
        (5, dict(devices=4, mesh=(4, 1, 1))),
        (14, dict(processes=2, mesh=(1, 2, 1))),
    ]
    for line, options in stops:
        started = start_toy(folder, pause=0.2, checkpoint_seconds=100.0, **options)
        while all(p.poll() is None for p in started) and lines_in(folder) < line:
            time.sleep(0.02)
        started[-1].send_signal(signal.SIGTERM)  # one is told, all stop
        ends(started)
        text = ''.join(said(started).values())
        assert 'preempted' in text and not (folder / 'params.npz').exists(), text
        assert [path.name for path in (folder / 'checkpoints').glob('[0-9]*')], text
    ends(start_toy(folder, devices=2, mesh=(1, 2, 1)))
    check_same(folder, alone)


def lines_in(folder):
    path = folder / 'metrics.jsonl'
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_a_frozen_host_is_named_by_the_others(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    started = start_toy(folder, 2, pause=0.2, stuck_seconds=6.0, epochs=(400,))
    while all(p.poll() is None for p in started) and lines_in(folder) < 2:
        time.sleep(0.02)
    started[1].send_signal(signal.SIGSTOP)
    assert started[0].wait(120) == 70, said(started)
    text = (folder / 'log0').read_text()
    assert 'stuck (loop.stuck_seconds is 6)' in text and 'process 1 said' in text
    assert 'amuse_jax/training/loop.py' in text  # where this one waits
