"""Training in several processes that know each other, as on several hosts, beside one process."""

import runpy
import signal
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.system import hosts
from amuse_jax.training import loop, watchdog
from tests.training.processes import ends, lines_in, rows_of, said, until

HERE = Path(__file__).parent
EXACT = dict(rtol=1e-5, atol=1e-6)  # sums are added up in another order


def check_same(folder, expected):
    found, wanted = rows_of(folder), rows_of(expected)
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    for each, other in zip(found, wanted):
        np.testing.assert_allclose(list(each.values()), list(other.values()), **EXACT)
    found, wanted = (np.load(each / 'params.npz') for each in (folder, expected))
    assert found.files == wanted.files
    for name in found.files:
        np.testing.assert_allclose(found[name], wanted[name], **EXACT, err_msg=name)


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
    assert all('noticed' in each.log.read_text() for each in started)
    for name, newest in (('checkpoints', ['29', '30']), ('best', ['30'])):
        assert sorted(path.name for path in (folder / name).glob('[0-9]*')) == newest


def test_a_run_goes_on_with_other_devices_and_hosts(start_toy, alone, tmp_path):
    """Stopped by SIGTERM twice: four devices, then two hosts, then two devices of one host."""
    folder = tmp_path / 'toy'
    stops = [
        (5, dict(devices=4, mesh=(4, 1, 1))),
        (14, dict(count=2, mesh=(1, 2, 1))),
    ]
    for line, options in stops:
        started = start_toy(folder, pause=0.2, checkpoint_seconds=100.0, **options)
        until(lambda: lines_in(folder) >= line, started)  # noqa: B023
        started[-1].send_signal(signal.SIGTERM)  # one is told, all stop
        ends(started)
        text = said(started)
        assert 'preempted' in text and not (folder / 'params.npz').exists(), text
        assert [path.name for path in (folder / 'checkpoints').glob('[0-9]*')], text
    ends(start_toy(folder, devices=2, mesh=(1, 2, 1)))
    check_same(folder, alone)


def test_a_notice_before_the_first_step_is_heard(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    started = start_toy(folder, 2, pause=3.0, checkpoint_seconds=100.0)
    until((folder / 'checkpoints').exists, started)
    assert lines_in(folder) == 0
    started[1].send_signal(signal.SIGTERM)
    ends(started, seconds=120)
    assert 'preempted' in said(started) and not (folder / 'params.npz').exists()
    steps = [int(path.name) for path in (folder / 'checkpoints').glob('[0-9]*')]
    assert steps and max(steps) < 5


def test_a_notice_while_the_first_host_works_alone_is_heard_behind_that(start_toy, tmp_path):
    folder = tmp_path / 'run'
    started = start_toy(folder, 2, script='two_stages.py', seconds=8, broken=-1)
    until((folder / 'wait/started').exists, started)
    started[1].send_signal(signal.SIGTERM)
    ends(started, seconds=60)
    assert all('preempted' in each.log.read_text() for each in started)
    assert (folder / 'wait/manifest.json').exists() and not (folder / 'work').exists()


def test_a_host_that_breaks_ends_at_once_and_says_why(start_toy, tmp_path):
    """Nobody would start all again while it waits for the others and they wait for it."""
    started = start_toy(tmp_path / 'run', 2, script='two_stages.py', seconds=0, broken=1)
    ends(started[1:], seconds=60, status=1)
    text = said(started[1:])
    assert 'IndexError: nobody foresaw this' in text and '(process 1)' in text


def test_one_host_that_finds_damage_has_all_start_again(start_toy, tmp_path):
    """Each reads its own chunks of a checkpoint; the damage is in those of one."""
    folder = tmp_path / 'toy'
    options = dict(mesh=(1, 2, 1), epochs=(2,), checkpoint_seconds=0.0)
    ends(start_toy(folder, 2, **options))
    *_, before, newest = sorted(
        (folder / 'checkpoints').glob('[0-9]*'), key=lambda path: int(path.name)
    )
    expected = dict(np.load(folder / 'params.npz'))
    (folder / 'params.npz').unlink()
    largest = max(newest.glob('params/d/*'), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 16
    largest.write_bytes(content)

    started = start_toy(folder, 2, **options)
    until(lambda: any(each.poll() is not None for each in started), ())
    (first,) = [each for each in started if each.poll() is not None][:1]
    ends([first], status=hosts.AGAIN)
    assert f'checkpoint {newest} cannot be read' in said([first])
    for each in started:  # as launches do
        each.kill()
        each.wait()
    aside = newest.with_name(f'damaged-{newest.name}')
    assert aside.is_dir() and not newest.exists() and before.is_dir()
    ends(start_toy(folder, 2, **options))
    assert newest.is_dir() and aside.is_dir()
    for name, array in np.load(folder / 'params.npz').items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.slow
def test_a_frozen_host_is_named_by_the_others(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    started = start_toy(folder, 2, pause=0.2, stuck_seconds=20.0, epochs=(400,))
    until(lambda: lines_in(folder) >= 2, started)
    started[1].send_signal(signal.SIGSTOP)
    ends(started[:1], seconds=120, status=watchdog.STUCK)
    text = (folder / 'log0').read_text()
    assert 'stuck (loop.stuck_seconds is 20)' in text and 'process 1 said' in text
    assert 'amuse_jax/training/loop.py' in text  # where this one waits
