import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from amuse_jax.benchmark import compiling, processes, rows, sweeps
from amuse_jax.data import records
from amuse_jax.errors import StageError
from amuse_jax.training import sharding
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
    'five questions about one video',
    "an epoch's work per sample (frozen encoders cached, questions grouped)",
    'compile of the training step',
    'input pipeline, from records, per core',
    'prepare, per core: 60 s of 640x360 video',
    'prepare, per core: 60 s of 640x360 video, key frames 10 s apart',
)


def command(*arguments, timeout=300):
    line = [sys.executable, '-m', 'amuse_jax.benchmark', *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


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
    done = command(
        '--config=tests/benchmark/small.py', '--rounds=2', '--nocompile', f'--out={tmp_path}',
        timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'figures.json').read_text())
    by_work = {row['work']: row for row in found['rows']}
    assert tuple(by_work) == WORK
    for work in WORK[:12]:
        row = by_work[work]
        seconds = row['seconds']
        assert row['times_faster']['PyTorch'] == pytest.approx(seconds['PyTorch'] / seconds['JAX'])
        assert row['kind'] == ('same result' if work in WORK[10:] else 'same work')
        assert row['versions'].keys() == {'jax', 'torch', 'transformers'}
        assert row['peak_bytes'].keys() >= {'JAX', 'PyTorch'} and 0 < row['share_of_peak'] < 1.5
    assert by_work['five questions about one video']['of_one_question'] < 5.5
    epoch = by_work[WORK[11]]
    shared = epoch['step_seconds'] + epoch['storing_seconds'] / epoch['epochs']
    assert epoch['seconds']['JAX'] == pytest.approx(shared / epoch['questions'])
    compiled = by_work['compile of the training step']
    assert compiled['from_cache_seconds'] < compiled['compile_seconds']['JAX']
    for work in WORK[-3:]:
        assert by_work[work]['samples_per_second']['JAX'] > 0
    assert len(records.RecordReader(tmp_path / 'records')) == 64
    assert f'| {WORK[8]}' in done.stdout


# The smallest model that has every part: compiling it takes most of these tests' time.
SMALLEST = [
    '--config=tests/benchmark/small.py', '--rounds=2', '--config.model.adapters.rounds=1',
    '--config.model.text.depth=1', '--config.model.answer.layers=1',
    *(f'--config.model.{tower}.depths=(1, 1, 1, 1)' for tower in ('visual', 'audio')),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='torch.compile needs g++'
)
def test_torch_compile_and_both_settings_of_freed_memory(tmp_path):
    common = [*SMALLEST, f'--out={tmp_path}']
    for arguments in (['--rows=step'], ['--rows=text', '--freed_memory=both']):
        done = command(*common, *arguments, timeout=1800)
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'figures.json').read_text())['rows']
    assert [(row['work'].split()[0], row['allocator']) for row in found] == [
        ('training', 'kept'), ('text', 'kept'), ('text', 'returned'),
    ]  # fmt: skip
    for row in found:
        assert row['compile_seconds']['torch.compile'] > 0


@pytest.mark.slow
def test_sweeps_are_measured_and_drawn(tmp_path):
    done = command(*SMALLEST, f'--out={tmp_path}', '--sweep=questions,remat_policy', timeout=1800)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'figures.json').read_text())['sweeps']
    for axis in ('questions', 'remat_policy'):
        assert [point['value'] for point in found[axis]] == sorted(sweeps.AXES[axis])
    points = found['remat_policy']
    planned = {point['value']: point['planned_bytes']['JAX'] for point in points}
    assert planned['inputs'] < planned['everything']
    assert len({point['flops'] for point in points}) == 1  # recomputed products do not count
    assert (tmp_path / 'sweeps.png').exists()


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
