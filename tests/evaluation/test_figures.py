import json
import math

import numpy as np
import pytest
from PIL import Image

from amuse_jax.evaluation import ablations, figures, tables
from amuse_jax.music_avqa import vocabulary
from tests.evaluation.read_back import from_csv


def _row(value):
    return dict.fromkeys(tables.COLUMNS, value)


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))


def _colours(path):
    return len(np.unique(_pixels(path).reshape(-1, 3), axis=0))


@pytest.mark.filterwarnings('error')
def test_training_curves_without_any_accuracy(tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "loss": 2.0}\n')
    figures.training_curves(tmp_path / 'metrics.jsonl', tmp_path / 'a.png')
    assert _colours(tmp_path / 'a.png') > 10


def test_curves_bars_and_importance_are_drawn(tmp_path):
    lines = [{'step': s, 'loss': 1 / (s + 1), 'accuracy': s / 9} for s in range(9)]
    lines.append({'step': 9, 'val_loss': 0.2, 'val_accuracy': 0.8})
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    figures.training_curves(tmp_path / 'metrics.jsonl', tmp_path / 'a.png')
    rows = {'ours': _row(70.0), 'other': _row(40.0)}
    figures.accuracy_bars(rows, tmp_path / 'b.png')
    figures.accuracy_bars(
        rows, tmp_path / 'd.png', {'ours': _row(3.0)}, {'theirs': _row(60.0), 'gap': _row(math.nan)}
    )
    predictions = [
        {'modality': m, 'kind': k, 'importance': {'visual': 0.25, 'regions': 0.75}}
        for m, k in vocabulary.TYPES
    ]
    figures.importance(predictions, tmp_path / 'c.png')
    for name in 'abcd':
        assert _colours(tmp_path / f'{name}.png') > 10


@pytest.mark.filterwarnings('error')
def test_every_template_has_a_row_of_marks(tmp_path):
    rows = [
        {'template': name, 'questions': 3, 'ours': 50.0, 'other': 20.0}
        for name in (*vocabulary.TEMPLATES, tables.OTHER_TEMPLATES)
    ]
    figures.template_marks(rows, tmp_path / 'all.png')
    figures.template_marks(rows[:3], tmp_path / 'some.png')
    few, many = (_pixels(tmp_path / f'{name}.png') for name in ('some', 'all'))
    assert len(many) > len(few) + 20 * (len(rows) - 3)


@pytest.mark.parametrize('test_set', ['', 'v1'])
def test_ablations_collect_the_five_rows(tmp_path, test_set):
    folders = {}
    for number, part in enumerate(ablations.ROWS):
        folders[part] = tmp_path / f'evaluate{part}'
        folders[part].mkdir()
        value = 10.0 + number
        test = {
            'rows': {'Amuse': _row(value)},
            'intervals': {'Amuse': _row((value - 2, value + 2))},
        }
        scores = {'test_set': {'published': test_set}, 'parts': {'test': test}}
        (folders[part] / 'scores.json').write_text(json.dumps(scores))
    text = ablations.write(tmp_path / 'ablations', folders)
    for number, name in enumerate(ablations.ROWS.values()):
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert line.count(f'{10 + number}.00') == len(tables.COLUMNS)
        (line,) = [line for line in text.splitlines() if line.startswith(f'{name}, ± 95 %')]
        assert line.count('±2.0') == len(tables.COLUMNS)
    note = '95 % interval of a bootstrap over test videos'
    assert note in text and note in (tmp_path / 'ablations/table.md').read_text()
    published = 'w/o RoIs (Diao et al., 2024)'
    assert (published in text) == (test_set == 'v1')
    rows = from_csv((tmp_path / 'ablations' / 'table.csv').read_text())
    assert rows['w/o RoIs, 95 % from'] == _row(11.0) and rows['w/o RoIs, 95 % to'] == _row(15.0)
    assert rows['w/o RoIs'] == _row(13.0)
    assert (f'{published}, types only' in rows) == (test_set == 'v1')
    assert _colours(tmp_path / 'ablations' / 'accuracy.png') > 10
