import json
import subprocess
import sys

import numpy as np
import pytest

from amuse_jax.errors import StageError
from amuse_jax.evaluation import seeds, tables
from amuse_jax.run import made_from, plan
from amuse_jax.system import formats
from amuse_jax.system.files import write_json
from configs import demo
from tests.evaluation.read_back import from_csv
from tests.paths import ROOT

METHODS = ('Amuse', 'question words')


def all_settings(seed=0, **changes):
    """Return all settings of an evaluated demo run, with changes such as rois__regions=3."""
    config = demo.get_config()
    changes = {name.replace('__', '.'): value for name, value in changes.items()}
    config.update_from_flattened_dict({'seed': seed, 'synthetic.seed': seed, **changes})
    found = {}
    for stage in plan.build_stages(config).values():
        found |= made_from.describe(config, stage.settings, {})['settings']
    return found


def make_part(rng):
    """Draw rows from 40 to 60 %, and intervals whose width differs from run to run."""
    rows = {
        method: dict(zip(tables.COLUMNS, (40 + 20 * rng.random(len(tables.COLUMNS))).tolist()))
        for method in METHODS
    }
    width = rng.integers(1, 9)
    intervals = {
        method: {column: (value - width, value + width) for column, value in row.items()}
        for method, row in rows.items()
    }
    return {'rows': rows, 'intervals': intervals}


def make_run(workdir, seed, test_set='', published='', folder='evaluate', parts=(), **changes):
    rng = np.random.default_rng(seed)
    scores = {
        'test_set': {'name': test_set, 'published': published},
        'model': {'fingerprint': f'f{seed}', 'settings': all_settings(seed, **changes)},
        'parts': {name: make_part(rng) for name in ('test', *parts)},
    }
    write_json(workdir / folder / 'scores.json', scores)
    write_json(workdir / folder / 'manifest.json', {'format': formats.FORMAT})
    return workdir


@pytest.fixture
def runs(tmp_path):
    return [make_run(tmp_path / f'run{seed}', seed) for seed in range(3)]


def test_mean_and_deviation_of_every_cell(runs, tmp_path):
    loaded = [seeds.read(path) for path in runs]
    summary = seeds.summarise(loaded)
    seeds.write(tmp_path / 'out', loaded)
    written = from_csv((tmp_path / 'out/table.csv').read_text())
    for method in METHODS:
        for column in tables.COLUMNS:
            values = [run.rows[method][column] for run in loaded]
            mean, deviation = sum(values) / 3, np.std(values) * np.sqrt(3 / 2)
            assert summary.means[method][column] == pytest.approx(mean)
            assert summary.deviations[method][column] == pytest.approx(deviation)
            assert written[method][column] == pytest.approx(mean, abs=0.005)
            assert written[f'{method}, deviation'][column] == pytest.approx(deviation, abs=0.005)
            own = written[f'{method}: {runs[1]}'][column]
            assert own == pytest.approx(values[1], abs=0.005)


def test_parts_that_all_runs_have_and_intervals(tmp_path):
    parts = ('rephrased', 'rephrased, head', 'rephrased, tail', 'test, unseen')
    paths = [
        make_run(tmp_path / str(seed), seed, parts=parts[: 3 + (seed < 2)]) for seed in range(3)
    ]
    loaded = [seeds.read(path) for path in paths]
    text = seeds.write(tmp_path / 'out', loaded)
    written = from_csv((tmp_path / 'out/table.csv').read_text())
    for name in ('test', *parts[:3]):
        for method in METHODS:
            label = method if name == 'test' else f'{method}: {name}'
            found = [run.scores['parts'][name] for run in loaded]
            values = [part['rows'][method]['V Avg'] for part in found]
            assert written[label]['V Avg'] == pytest.approx(np.mean(values), abs=0.005)
            deviation = written[f'{label}, deviation']['V Avg']
            assert deviation == pytest.approx(np.std(values, ddof=1), abs=0.005)
            assert f'{np.mean(values):.2f}' in text
        ends = [part['intervals']['Amuse']['V Avg'] for part in found]
        margin = np.mean([(high - low) / 2 for low, high in ends])
        label = 'Amuse' if name == 'test' else f'Amuse: {name}'
        assert written[f'{label}, ± 95 %']['V Avg'] == pytest.approx(margin, abs=0.005)
        (line,) = [line for line in text.splitlines() if line.startswith(f'{label}, ± 95 % ')]
        assert f'±{margin:.1f}' in line
    assert 'unseen' not in text  # one run has no such part


def test_the_command_prints_what_it_writes(runs, tmp_path):
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'amuse_jax.evaluation', 'seeds', *runs, f'--out={out}']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / 'table.txt').read_text().strip() in done.stdout
    page = (out / 'table.md').read_text()
    assert page.startswith('| ') and 'over 3 runs' in page and (out / 'accuracy.png').exists()
    assert 'Diao' not in page

    done = subprocess.run([*command[:5], tmp_path, f'--out={out}'], cwd=ROOT, capture_output=True)
    assert done.returncode == 1 and b'Traceback' not in done.stderr
    assert b'has no finished evaluate stage' in done.stderr


def test_another_evaluate_folder_and_published_rows(tmp_path):
    paths = [
        make_run(tmp_path / str(seed), seed, 'MUSIC-AVQA v1', 'v1', 'evaluate-without-rois')
        / 'evaluate-without-rois'
        for seed in range(2)
    ]
    text = seeds.write(tmp_path / 'out', [seeds.read(path) for path in paths])
    assert 'on MUSIC-AVQA v1' in text and 'LSTTA (Liu et al., 2023)' in text
    assert from_csv((tmp_path / 'out/table.csv').read_text())[
        'Amuse (Diao et al., 2024), types only'
    ]


@pytest.mark.parametrize(
    ('other', 'sentence'),
    [
        (dict(seed=0), 'repeats another of the runs'),
        (
            dict(seed=1, model__text__width=2),
            'has other settings than .*model.text.width is 2 and was 128',
        ),
        (
            dict(seed=1, pretrain__epochs=7),
            'has other settings than .*pretrain.epochs is 7 and was 1',
        ),
        (dict(seed=1, rhythm__threshold=0.5), 'has other settings than .*rhythm.threshold'),
        (
            dict(seed=1, sources__threshold_db=-9.0),
            'has other settings than .*sources.threshold_db',
        ),
        (dict(seed=1, rois__regions=3), 'has other settings than .*rois.regions'),
        (dict(seed=1, data__annotations='v1'), 'has other settings than .*data.annotations'),
        (dict(seed=1, audio__mels=32), 'has other settings than .*audio.mels'),
        (dict(seed=1, synthetic__videos=9), 'has other settings than .*synthetic.videos'),
        (dict(seed=1, test_set='MUSIC-AVQA v2'), 'was evaluated on MUSIC-AVQA v2, but .*run0'),
    ],
)
def test_runs_that_differ_in_more_than_seeds_are_refused(runs, tmp_path, other, sentence):
    added = make_run(tmp_path / 'added', **other)
    with pytest.raises(StageError, match=sentence):
        seeds.summarise([seeds.read(runs[0]), seeds.read(added)])


def test_the_content_of_the_data_counts_and_not_its_folder(tmp_path):
    runs = []
    for seed, (root, data) in enumerate((('/a', 'x'), ('/mnt/a/', 'x'), ('/a', 'y'), ('/a', ''))):
        path = make_run(tmp_path / f'run{seed}', seed, data__root=root)
        scores = json.loads((path / 'evaluate/scores.json').read_text())
        scores['model']['data'] = data
        write_json(path / 'evaluate/scores.json', scores)
        runs.append(seeds.read(path))
    seeds.summarise([runs[0], runs[1], runs[3]])  # the last one does not know its content
    with pytest.raises(StageError, match='the videos or the annotations have other contents'):
        seeds.summarise([runs[0], runs[2]])


def test_an_unfinished_run_is_refused(runs):
    (runs[0] / 'evaluate/manifest.json').unlink()
    with pytest.raises(StageError, match='no finished evaluate stage'):
        seeds.read(runs[0])
