import json
import subprocess
import sys

import pytest

from amuse_jax.errors import StageError
from amuse_jax.evaluation import ablations, tables
from amuse_jax.system import formats
from amuse_jax.system.files import write_json
from tests.evaluation.read_back import from_csv


def _row(value):
    return dict.fromkeys(tables.COLUMNS, value)


def test_ablations_have_a_second_table_of_the_rephrased_questions(tmp_path):
    folders = {}
    for number, part in enumerate(ablations.ROWS):
        folders[part] = tmp_path / f'evaluate{part}'
        folders[part].mkdir()
        parts = {}
        for index, name in enumerate(('test', 'rephrased', 'rephrased, head', 'rephrased, tail')):
            value = 10.0 * (index + 1) + number
            interval = _row((value - 2, value + 2))
            parts[name] = {'rows': {'Amuse': _row(value)}, 'intervals': {'Amuse': interval}}
        scores = {'test_set': {'published': ''}, 'parts': parts}
        (folders[part] / 'scores.json').write_text(json.dumps(scores))
    text = ablations.write(tmp_path / 'ablations', folders)
    rows = from_csv((tmp_path / 'ablations' / 'table.csv').read_text())
    for number, name in enumerate(ablations.ROWS.values()):
        for index, part in enumerate(('', ': rephrased', ': rephrased, head', ': rephrased, tail')):
            assert rows[name + part] == _row(10.0 * (index + 1) + number)
            assert f'\n{name}{part} ' in text and f'\n{name}{part}, ± 95 % ' in text


def make_run(workdir, right, folder='evaluate'):
    """Write the answers of a run; `right` has, by part, whether each of its answers is right."""
    for part, hits in right.items():
        evaluate = workdir / (f'{folder}-without-{part}' if part else folder)
        write_json(evaluate / 'scores.json', {})
        write_json(evaluate / 'manifest.json', {'format': formats.FORMAT})
        lines = [
            {
                'question_id': str(index),
                'video_id': f'v{index // 2}',
                'record': index // 2,
                'split': 'test',
                'modality': 'Visual',
                'kind': 'Location' if index % 2 else 'Counting',
                'template': 'Where?',
                'question': 'Where?',
                'answer': 'yes',
                'predicted': 'yes' if hit else 'no',
            }
            for index, hit in enumerate(hits)
        ]
        lines.append(lines[0] | {'split': 'rephrased'})
        (evaluate / 'predictions.jsonl').write_text('\n'.join(map(json.dumps, reversed(lines))))
    return workdir


@pytest.fixture
def runs(tmp_path):
    whole = {'': [1, 1, 1, 0], 'encoder': [1, 1, 1, 0], 'rhythm': [1, 1, 1, 1]}
    first = make_run(tmp_path / 'a', whole | {'sources': [0, 1, 0, 0], 'rois': [0, 0, 0, 0]})
    second = make_run(
        tmp_path / 'b', dict.fromkeys(('', 'encoder', 'rhythm', 'sources', 'rois'), [1] * 4)
    )
    return [first, second]


def test_the_worth_of_a_part_is_over_the_questions_of_all_runs(runs, tmp_path):
    out = tmp_path / 'worth'
    command = [sys.executable, '-m', 'amuse_jax.evaluation', 'ablations', *runs, f'--out={out}']
    printed = subprocess.check_output(command, text=True)
    rows = from_csv((out / 'table.csv').read_text())
    found = {
        name: [rows[name][c] for c in ('V Count', 'V Local', 'Avg')]
        for name in ablations.ROWS.values()
    }
    assert found == {
        'Amuse': [100, 75, 87.5],
        'w/o M.i.e.': [0, 0, 0],
        'w/o Rhy.': [0, 25, 12.5],
        'w/o Src.': [-50, 0, -25],
        'w/o RoIs': [-50, -25, -37.5],
    }
    # Both videos of the first run are lost without the regions, none of the second: the same name
    # in two runs is not the same video, or a resample could not miss the first run's.
    assert [rows[f'w/o RoIs, 95 % {bound}']['V Count'] for bound in ('from', 'to')] == [-100, 0]
    assert [rows[f'w/o M.i.e., 95 % {bound}']['Avg'] for bound in ('from', 'to')] == [0, 0]
    assert '\nw/o RoIs, ± 95 % ' in printed and (out / 'accuracy.png').stat().st_size > 1000


def test_the_papers_head_has_folders_of_its_own(tmp_path):
    run = make_run(tmp_path, dict.fromkeys(ablations.ROWS, [1, 0]), 'evaluate-paper-head')
    text = ablations.write_differences(tmp_path / 'worth', [run / 'evaluate-paper-head'])
    assert '\nAmuse ' in text


def test_a_missing_ablation_and_other_questions_are_refused(runs, tmp_path):
    make_run(runs[1], {'rois': [1, 1]})
    with pytest.raises(StageError, match='evaluate-without-rois answers other questions than'):
        ablations.write_differences(tmp_path / 'worth', runs)
    whole = make_run(tmp_path / 'c', {'': [1, 1]})
    with pytest.raises(StageError, match='evaluate-without-encoder has no finished evaluate stage'):
        ablations.write_differences(tmp_path / 'worth', [whole])
