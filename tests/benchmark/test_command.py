import ast
import json
import os
import re

import pytest

from amuse_jax.benchmark import compiling, processes, rows
from amuse_jax.data import records
from amuse_jax.errors import StageError
from amuse_jax.training import sharding
from tests.benchmark.command import SMALLEST, command
from tests.paths import ROOT

# The names of all rows.
WORK = (
    'Swin-V2 forward, 3 frames',
    'HTS-AT forward, 3 segments',
    'text forward, 5 questions',
    'adapters forward, one round',
    'Swin-V2 gradient, 3 frames',
    'HTS-AT gradient, 3 segments',
    'text gradient, 5 questions',
    'adapters gradient, one round',
    'whole model, forward, one video and one question',
    'training step, towers frozen on both sides, one video',
    'Swin-V2 forward, frozen, 3 frames',
    'HTS-AT forward, frozen, 3 segments',
    'five questions about one video',
    "an epoch's work per sample (frozen encoders cached, questions grouped)",
    'compile of the training step',
    'input pipeline, from records, per core',
    'prepare, per core: 60 s of 640x360 video',
    'prepare, per core: 60 s of 640x360 video, key frames 10 s apart',
)


def test_a_mistake_is_one_sentence(tmp_path):
    done = command('--config=configs/v1.py:without=rois', f'--out={tmp_path}')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('amuse_jax: ') and "config.without is 'rois'" in last


@pytest.mark.parametrize(
    ('field', 'sentence'),
    [
        ('rows', 'rows: sing is unknown; expected some of visual, audio'),
        ('sweeps', 'sweeps: sing is unknown; expected some of batch, questions'),
        ('dtypes', 'dtypes: sing is unknown; expected some of float32, bfloat16'),
    ],
)
def test_unknown_names_are_refused(tmp_path, field, sentence):
    names = {'rows': ['visual'], 'sweeps': [], 'dtypes': ['float32']}
    names[field] = [*names[field], 'sing']
    with pytest.raises(StageError, match=sentence):
        rows.Plan(**names, rounds=1, with_compile=False, freed_memory='kept', folder=tmp_path)


def test_a_process_can_be_limited_to_one_core():
    cores = processes.run(os.sched_getaffinity, 0, keep_memory=True, one_core=True)
    assert len(cores) == 1
    assert len(os.sched_getaffinity(0)) >= len(cores)


def test_the_compiled_step_is_the_training_step(small):
    step, arguments = compiling.abstract_step(small, sharding.single_device_mesh())
    after, is_finite = step.eval_shape(*arguments)
    assert is_finite.shape == ()
    shapes = [{n: x.shape for n, x in state.params.items()} for state in (arguments[0], after)]
    assert shapes[0] == shapes[1]
    assert arguments[2]['words'].shape[:2] == (small.train.batch_size, small.train.questions)


@pytest.mark.slow
def test_every_row_is_measured_and_saved(tmp_path):
    done = command(*SMALLEST, '--nocompile', f'--out={tmp_path}', timeout=1800)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'figures.json').read_text())
    by_work = {row['work']: row for row in found['rows']}
    assert tuple(by_work) == WORK
    for work in WORK[:14]:
        row = by_work[work]
        seconds = row['seconds']
        has_windows = not work.startswith(('text', 'adapters'))
        is_same_work = work in WORK[:10]
        assert row['kind'] == ('same work' if is_same_work else 'same result')
        others = ['PyTorch'] * is_same_work + ['PyTorch SDPA'] * has_windows
        assert {*others} == row['times_faster'].keys() - {'JAX one by one'}
        for name in others:
            assert row['times_faster'][name] == pytest.approx(seconds[name] / seconds['JAX'])
        assert row['versions'].keys() == {'jax', 'torch', 'transformers'}
        assert row['peak_bytes'].keys() >= {'JAX', *others} and 0 < row['share_of_peak'] < 1.5
    assert by_work['five questions about one video']['of_one_question'] < 5.5
    epoch = by_work[WORK[13]]
    for side, storing in (('JAX', 'JAX'), ('PyTorch SDPA', 'PyTorch')):
        shared = epoch['step_seconds'][side] + epoch['storing_seconds'][storing] / epoch['epochs']
        assert epoch['seconds'][side] == pytest.approx(shared / epoch['questions'])
    compiled = by_work['compile of the training step']
    assert compiled['from_cache_seconds'] < compiled['compile_seconds']['JAX']
    for work in WORK[-3:]:
        assert by_work[work]['samples_per_second']['JAX'] > 0
    assert len(records.RecordReader(tmp_path / 'records')) == 64
    assert f'| {WORK[8]}' in done.stdout


def test_the_first_column_of_the_help_names_exactly_the_rows():
    text = (ROOT / 'amuse_jax/benchmark/__main__.py').read_text()
    lines = ast.get_docstring(ast.parse(text)).splitlines()
    columns = [re.match(r'(\S+(?: \S+)*)  +\S', line) for line in lines]
    named = {
        name
        for column in columns
        if column and not column[1].startswith('python')
        for name in column[1].split(', ')
    }
    gradients = {name for name in rows.ROWS if name.endswith('-gradient')}
    assert named == {*rows.ROWS} - gradients | {'visual-gradient', '...-gradient'}
