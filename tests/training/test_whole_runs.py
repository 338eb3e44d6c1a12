"""The commands that a user starts, in several processes: pretrain, train and evaluate."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from amuse_jax import plan, stages
from amuse_jax.training import pace

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name('tiny_run.py')
TINY = runpy.run_path(str(Path(__file__).with_name('conftest.py')))


def make_workdir(workdir, inputs):
    """A workdir whose stages before training are done."""
    config = runpy.run_path(str(CONFIG))['get_config']()
    chosen = plan.stages_of(config)
    for name in ('render', 'prepare', 'annotate', 'rois'):
        folder = chosen[name].path(workdir)
        if name in inputs:
            shutil.copytree(inputs[name], folder)
        manifest = {
            'format': stages.FORMAT,
            'stage': name,
            'fingerprint': stages.fingerprint(chosen[name], config, chosen),
            'settings': stages.settings_of(chosen[name], config),
            'summary': {},
        }
        stages.write_json(folder / 'manifest.json', manifest)
    return workdir


def start(workdir, processes, devices, *arguments):
    arguments = [f'--config={CONFIG}', f'--workdir={workdir}', *arguments]
    command = [ROOT / 'launch/local.sh', str(processes), *arguments]
    if processes == 1:
        command = [sys.executable, '-m', 'amuse_jax.main', *arguments]
    environment = TINY['environment'](devices) | {
        'PYTHON': sys.executable, 'PORT': str(TINY['free_port']()), 'RESTARTS': '0',
    }  # fmt: skip
    log = open(workdir.with_suffix('.log'), 'a')
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)


def finish(workdir, *started):
    process = start(workdir, *started)
    assert process.wait(1800) == 0, workdir.with_suffix('.log').read_text()[-5000:]


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [{name: row[name] for name in row if name not in pace.CLOCK} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize('processes', [2, 4])
def test_several_hosts_do_the_whole_job_as_one(tiny, tmp_path, processes):
    """With as many devices: hosts of one device each, and one host that has them all."""
    _, inputs = tiny
    several, one = (make_workdir(tmp_path / name, inputs) for name in ('several', 'one'))
    finish(several, processes, 1)
    finish(one, 1, processes)
    for stage in ('pretrain/predictors', 'pretrain', 'train'):
        found, expected = rows_of(several / stage), rows_of(one / stage)
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
        '--config=configs/demo.py', '--stages=render', '--config.synthetic.videos=40',
        '--config.data.workers=1', f'--workdir={tmp_path}/run',
    ]  # fmt: skip
    command = [sys.executable, '-m', 'amuse_jax.main', *arguments]
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    with open(tmp_path / 'log', 'w') as log:
        first = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
    try:
        while first.poll() is None and not (tmp_path / 'run/render/started').exists():
            time.sleep(0.1)
        second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert second.returncode == 1 and 'Traceback' not in second.stderr
        last = second.stderr.strip().splitlines()[-1]
        assert f'run is in use by process {os.uname().nodename}:{first.pid} since' in last
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 0
    finally:
        first.kill()
        first.wait()
    said = (tmp_path / 'log').read_text()
    assert said.strip().endswith('the same command goes on from there')
    assert not (tmp_path / 'run/render/manifest.json').exists()
