import json
import random
import runpy
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import logging

from amuse_jax.errors import StageError
from amuse_jax.training import checkpoints, loop
from tests.training.processes import (
    count_lines,
    has_started,
    read_metrics,
    wait_for_exit,
    wait_until,
)

SCRIPT = Path(__file__).with_name('toy_job.py')


@pytest.fixture(scope='module')
def toy():
    return runpy.run_path(str(SCRIPT))


def test_loss_falls_and_only_chosen_parameters_train(toy, tmp_path):
    job, params = toy['job'](tmp_path, epochs=(12, 3), checkpoint_seconds=100.0)
    before = jax.tree.map(np.asarray, params)
    assert set(params) == {'answer.bias', 'answer.kernel'}
    assert set(job.frozen) == {'tower.bias', 'tower.kernel'}
    after = loop.fit(job, params)
    assert all((np.asarray(after[name]) != before[name]).any() for name in before)
    rows = read_metrics(tmp_path)
    losses = [row['val_loss'] for row in rows if 'val_loss' in row]
    assert len(losses) == 15
    assert losses[-1] < 0.5 * losses[0]
    assert losses[-1] < 0.4, losses


def test_metrics_have_a_line_per_interval_and_epoch(toy, tmp_path):
    loop.fit(*toy['job'](tmp_path, epochs=(2, 1)))  # 6 steps per epoch, a line every 4
    rows = read_metrics(tmp_path)
    assert [row['step'] for row in rows if 'loss' in row] == [4, 6, 8, 12, 16, 18]
    assert [row['step'] for row in rows if 'val_loss' in row] == [6, 12, 18]
    assert [row['epoch'] for row in rows if 'val_loss' in row] == [1, 2, 3]
    rates = {row['step']: row['learning_rate'] for row in rows if 'loss' in row}
    assert rates[4] == rates[12] == pytest.approx(3e-2)
    assert rates[18] == pytest.approx(1e-2)  # the second phase's own schedule
    assert list((tmp_path / 'tensorboard').glob('events*'))


def test_the_first_line_of_a_phase_has_no_rates(toy, tmp_path):
    """Most of its time is compilation."""
    loop.fit(*toy['job'](tmp_path, epochs=(2, 1)))
    rows = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows if 'step_seconds' in row] == [6, 8, 12, 18]
    assert [row['step'] for row in rows if 'seconds_left' in row] == [4, 6, 8, 12, 16, 18]


def test_a_finished_job_returns_at_once_with_the_same_parameters(toy, tmp_path):
    first = loop.fit(*toy['job'](tmp_path, epochs=(1, 1)))
    rows = read_metrics(tmp_path)
    again = loop.fit(*toy['job'](tmp_path, epochs=(1, 1)))
    assert all((np.asarray(first[name]) == np.asarray(again[name])).all() for name in first)
    assert read_metrics(tmp_path) == rows


def test_best_holds_the_parameters_of_the_best_validation(toy, tmp_path):
    job, params = toy['job'](tmp_path, epochs=(4, 2))
    loop.fit(job, params)
    scores = [row['val_accuracy'] for row in read_metrics(tmp_path) if 'val_accuracy' in row]
    kept, record = checkpoints.read_best(tmp_path / 'best', params)
    assert record['score'] == max(scores)
    assert record['epoch'] == scores.index(max(scores)) + 1
    assert set(kept) == set(params)


def test_non_finite_steps_are_refused_logged_and_stop_the_run(toy, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, 'warning', lambda text, *args: warnings.append(text % args))
    job, params = toy['job'](tmp_path, epochs=(2, 1), poison=(5,), max_refused=1)
    with pytest.raises(StageError, match='2 steps .*max_refused allows 1'):
        loop.fit(job, params)
    assert len([w for w in warnings if 'refused' in w and 'video5' in w]) == 2
    kept = checkpoints.read_params(tmp_path / 'checkpoints', params)
    assert all(np.isfinite(array).all() for array in kept.values())


def test_a_killed_and_restarted_run_equals_an_uninterrupted_one(toy, start_toy, tmp_path):
    calm, killed = tmp_path / 'calm', tmp_path / 'killed'
    calm.mkdir()
    expected = loop.fit(*toy['job'](calm, pause=0.0))
    moments = random.Random(3)
    for _ in range(2):
        begun = time.time()
        (process,) = start_toy(killed, pause=0.1)
        wait_until(lambda: has_started(killed, begun), [process])  # noqa: B023
        lines = count_lines(killed) + moments.randint(2, 5)
        wait_until(lambda: count_lines(killed) >= lines, [process])  # noqa: B023
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    wait_for_exit(start_toy(killed))
    found = np.load(killed / 'params.npz')
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(array), found[name])
    assert read_metrics(killed) == read_metrics(calm)
    best = [checkpoints.read_best(folder / 'best', expected) for folder in (calm, killed)]
    assert best[0][1] == best[1][1]
    assert all((best[0][0][name] == best[1][0][name]).all() for name in expected)
