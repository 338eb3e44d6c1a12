import json

from amuse_jax.evaluation import ablations, tables
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
