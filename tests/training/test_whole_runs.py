"""Run pretrain, train and evaluate by the user's commands, in several processes."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amuse_jax.config import PARTS
from amuse_jax.evaluation import ablations
from amuse_jax.run import plan, set_aside
from amuse_jax.run.stage import write_manifest
from tests.paths import ROOT
from tests.training import processes

CONFIG = Path(__file__).with_name('tiny_run.py')


def make_workdir(workdir, inputs):
    """Make a workdir in which all stages before training are complete."""
    config = runpy.run_path(str(CONFIG))['get_config']()
    chosen = plan.build_stages(config)
    for name in ('render', 'prepare', 'annotate', 'rois'):
        folder = chosen[name].path(workdir)
        if name in inputs:
            shutil.copytree(inputs[name], folder)
        write_manifest(chosen[name], config, workdir, chosen, {})
    return workdir


def finish(workdir, count, devices, *arguments):
    """Run main to its end in `count` processes with `devices` devices each."""
    arguments = [f'--config={CONFIG}', f'--workdir={workdir}', *arguments]
    command = [ROOT / 'launch/local.sh', str(count), *arguments]
    if count == 1:
        command = [sys.executable, '-m', 'amuse_jax.main', *arguments]
    environment = processes.environment(devices) | {
        'PYTHON': sys.executable, 'PORT': str(processes.free_port()), 'RESTARTS': '0',
    }  # fmt: skip
    log = workdir.with_suffix('.log')
    started = processes.start(command, log, env=environment, cwd=ROOT)
    try:
        processes.wait_for_exit([started], 1800)
    finally:
        started.terminate()


@pytest.mark.slow
def test_a_whole_run_on_several_hosts_equals_one_host(tiny, tmp_path):
    """Compare four hosts with one device each and one host with four devices.

    There are more hosts than test videos, so some hosts have none.
    """
    _, inputs = tiny
    count = 4
    several, one = (make_workdir(tmp_path / name, inputs) for name in ('several', 'one'))
    finish(several, count, 1)
    finish(one, 1, count)
    for stage in ('pretrain/predictors', 'pretrain', 'train'):
        found, expected = (
            processes.read_metrics(several / stage),
            processes.read_metrics(one / stage),
        )
        assert [row.keys() for row in found] == [row.keys() for row in expected]
        for each, other in zip(found, expected):
            np.testing.assert_allclose(list(each.values()), list(other.values()), rtol=1e-4)
    found, expected = (
        [json.loads(line) for line in (each / 'evaluate/predictions.jsonl').open()]
        for each in (several, one)
    )
    assert [row['question_id'] for row in found] == [row['question_id'] for row in expected]
    questions = json.loads((one / 'prepare/questions.json').read_text())
    assert len(found) == sum(row['split'] == 'test' for row in questions)
    for each, other in zip(found, expected):
        np.testing.assert_allclose(each['probabilities'], other['probabilities'], atol=1e-3)
    scores = [json.loads((each / 'evaluate/scores.json').read_text()) for each in (several, one)]
    assert scores[0]['parts']['test']['rows'] == scores[1]['parts']['test']['rows']


def test_a_second_run_in_the_workdir_is_refused_and_sigterm_ends_the_first(tmp_path):
    arguments = [
        '--config=configs/demo.py', '--stages=render', '--config.synthetic.videos=1000',
        '--config.data.workers=1', f'--workdir={tmp_path}/run',
    ]  # fmt: skip
    command = [sys.executable, '-m', 'amuse_jax.main', *arguments]
    options = dict(cwd=ROOT, env=processes.environment())
    first = processes.start(command, tmp_path / 'log', **options)
    try:
        processes.wait_until((tmp_path / 'run/render/started').exists, [first])
        second = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
        assert second.returncode == 1 and 'Traceback' not in second.stderr
        last = second.stderr.strip().splitlines()[-1]
        assert f'run is in use by process {os.uname().nodename}:{first.pid} since' in last
        first.send_signal(signal.SIGTERM)
        processes.wait_for_exit([first], status=143)
    finally:
        first.kill()
        first.wait()
    said = first.log.read_text()
    assert said.strip().endswith('run the same command again to continue')
    assert not (tmp_path / 'run/render/manifest.json').exists()


@pytest.mark.slow
def test_the_ablations_of_the_papers_head_leave_the_results_of_ours_in_place(tiny, tmp_path):
    _, inputs = tiny
    workdir = make_workdir(tmp_path / 'run', inputs)
    quick = ('--config.train.head_epochs=1', '--config.train.epochs=0')
    finish(workdir, 1, 1, *quick)
    before = {path: path.read_bytes() for path in sorted(workdir.glob('*/manifest.json'))}
    for _ in range(2):  # the second time everything is there
        finish(workdir, 1, 1, *quick, '--config.model.head=paper', '--stages=ablations')
        parts = ('', *(f'-without-{part}' for part in PARTS))
        for name in (
            f'{stage}-paper-head{part}' for stage in ('train', 'evaluate') for part in parts
        ):
            path = workdir / name / 'manifest.json'
            assert before.setdefault(path, path.read_bytes()) == path.read_bytes()
    assert {path: path.read_bytes() for path in workdir.glob('*/manifest.json')} == before
    assert not set_aside.all_folders(workdir)
    table = (workdir / 'ablations-paper-head' / 'table.csv').read_text()
    assert all(row in table for row in ablations.ROWS.values())
    assert not (workdir / 'ablations').exists()
