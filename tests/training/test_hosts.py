"""Compare training in several connected processes, as on several hosts, with one process."""

import runpy
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.system import hosts
from amuse_jax.training import loop, watchdog
from tests.training.processes import count_lines, log_tails, read_metrics, wait_for_exit, wait_until

HERE = Path(__file__).parent
EXACT = dict(rtol=1e-5, atol=1e-6)  # only the order of additions differs


def check_equal_runs(folder, expected):
    found, wanted = read_metrics(folder), read_metrics(expected)
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
def test_several_hosts_train_as_one(start_toy, alone, tmp_path, processes, devices):
    started = start_toy(tmp_path / 'toy', processes, devices)
    wait_for_exit(started)
    check_equal_runs(tmp_path / 'toy', alone)


@pytest.mark.slow
def test_two_folders_are_saved_at_once_and_a_notice_is_received(start_toy, tmp_path):
    """Hosts that wait at barriers of different folders would wait for ever.

    The step numbers of the checkpoints are independent of the numbers by which the hosts agree
    where to stop.
    """
    folder = tmp_path / 'two'
    wait_for_exit(started := start_toy(folder, 2, script='two_folders.py'))
    assert all('noticed' in each.log.read_text() for each in started)
    for name, newest in (('checkpoints', ['29', '30']), ('best', ['30'])):
        assert sorted(path.name for path in (folder / name).glob('[0-9]*')) == newest


@pytest.mark.slow
def test_a_run_resumes_with_other_devices_and_hosts(start_toy, alone, tmp_path):
    """SIGTERM stops the run twice: four devices, then two hosts, then two devices of one host."""
    folder = tmp_path / 'toy'
    stops = [
        (5, dict(devices=4, mesh=(4, 1, 1))),
        (14, dict(count=2, mesh=(1, 2, 1))),
    ]
    for line, options in stops:
        started = start_toy(folder, pause=0.2, checkpoint_seconds=100.0, **options)
        wait_until(lambda: count_lines(folder) >= line, started)  # noqa: B023
        started[-1].send_signal(signal.SIGTERM)  # one process gets the notice, all stop
        wait_for_exit(started)
        text = log_tails(started)
        assert 'preempted' in text and not (folder / 'params.npz').exists(), text
        assert [path.name for path in (folder / 'checkpoints').glob('[0-9]*')], text
    wait_for_exit(start_toy(folder, devices=2, mesh=(1, 2, 1)))
    check_equal_runs(folder, alone)


def test_a_notice_before_the_first_step_is_received(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    started = start_toy(folder, 2, pause=3.0, checkpoint_seconds=100.0)
    wait_until((folder / 'checkpoints').exists, started)
    assert count_lines(folder) == 0
    started[1].send_signal(signal.SIGTERM)
    wait_for_exit(started)
    assert 'preempted' in log_tails(started) and not (folder / 'params.npz').exists()
    steps = [int(path.name) for path in (folder / 'checkpoints').glob('[0-9]*')]
    assert steps and max(steps) < 5


def test_a_notice_while_the_first_host_works_alone_is_received_afterwards(start_toy, tmp_path):
    folder = tmp_path / 'run'
    started = start_toy(folder, 2, script='two_stages.py', pause=True, broken=-1)
    wait_until((folder / 'wait/started').exists, started)
    started[1].send_signal(signal.SIGTERM)
    wait_until(lambda: 'SIGTERM caught' in started[1].log.read_text(), started)  # JAX says so
    time.sleep(2)  # then it tells the other process, which nothing shows
    (folder / 'continue').touch()
    wait_for_exit(started)
    assert all('preempted' in each.log.read_text() for each in started)
    assert (folder / 'wait/manifest.json').exists() and not (folder / 'work').exists()


def test_a_host_that_fails_ends_at_once_and_reports_why(start_toy, tmp_path):
    """If it waited for the others while they wait for it, nothing would restart the run."""
    folder = tmp_path / 'run'
    started = start_toy(folder, 2, script='two_stages.py', pause=False, broken=1)
    wait_until((folder / 'work/started').exists, started[:1])
    wait_for_exit(started[1:], seconds=120, status=1)  # Python's own exit would wait for 300 s
    text = log_tails(started[1:])
    assert 'IndexError: nobody foresaw this' in text and '(process 1)' in text


@pytest.mark.slow
def test_all_hosts_restart_if_one_finds_a_damaged_checkpoint(start_toy, tmp_path):
    """Each host reads its own chunks of a checkpoint; the damage is in the chunks of one host."""
    folder = tmp_path / 'toy'
    options = dict(mesh=(1, 2, 1), epochs=(2,), checkpoint_seconds=0.0)
    wait_for_exit(start_toy(folder, 2, **options))
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
    wait_until(lambda: any(each.poll() is not None for each in started), (), 300)
    (first,) = [each for each in started if each.poll() is not None][:1]
    wait_for_exit([first], status=hosts.RESTART_STATUS)
    assert f'checkpoint {newest} cannot be read' in log_tails([first])
    for each in started:  # as the launch scripts do
        each.kill()
        each.wait()
    aside = newest.with_name(f'damaged-{newest.name}')
    assert aside.is_dir() and not newest.exists() and before.is_dir()
    wait_for_exit(start_toy(folder, 2, **options))
    assert newest.is_dir() and aside.is_dir()
    for name, array in np.load(folder / 'params.npz').items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.slow
def test_a_frozen_host_is_reported_by_the_others(start_toy, tmp_path):
    folder = tmp_path / 'toy'
    started = start_toy(folder, 2, pause=0.2, stuck_seconds=20.0, epochs=(400,))
    wait_until(lambda: count_lines(folder) >= 2 and (folder / 'hosts/1').exists(), started)
    started[1].send_signal(signal.SIGSTOP)
    wait_for_exit(started[:1], status=watchdog.STUCK)
    text = (folder / 'log0').read_text()
    assert 'stuck (loop.stuck_seconds is 20)' in text and 'process 1 said' in text
    assert 'amuse_jax/training/loop.py' in text  # where this one waits
