import json

import pytest

from amuse_jax.benchmark import report, sweeps
from amuse_jax.config import default_config
from amuse_jax.errors import StageError

ROW = {
    'work': 'a step', 'kind': 'same work', 'dtype': 'float32', 'allocator': 'kept', 'samples': 1,
    'flops': 2e9, 'versions': {'jax': '1'},
    'seconds': {'JAX': 0.5, 'PyTorch': 1.5}, 'spread': {'JAX': 0.01, 'PyTorch': 0.02},
    'times_faster': {'PyTorch': 3.0}, 'samples_per_second': {'JAX': 2.0, 'PyTorch': 0.67},
    'flops_per_second': 4e9, 'share_of_peak': 0.5, 'peak_bytes': {'JAX': 2**31, 'PyTorch': 2**30},
    'compile_seconds': {'JAX': 12.0},
}  # fmt: skip
COMPILE = {
    'work': 'compile of it', 'dtype': 'float32', 'allocator': 'kept',
    'compile_seconds': {'JAX': 60.0}, 'from_cache_seconds': 6.0,
}  # fmt: skip


def test_rows_are_saved_at_once_and_replaced_when_measured_again(tmp_path):
    path, config = tmp_path / 'figures.json', default_config()
    figures = report.Figures(path, config)
    figures.add(ROW)
    assert json.loads(path.read_text())['rows'] == [ROW]
    figures.add(COMPILE)
    again = report.Figures(path, config)  # a later run
    again.add(ROW | {'samples': 2})
    again.add(ROW | {'allocator': 'returned'})
    rows = json.loads(path.read_text())['rows']
    assert [row.get('samples') for row in rows] == [2, None, 1]


def test_rates_of_products_are_printed_and_saved(tmp_path):
    path, config = tmp_path / 'figures.json', default_config()
    rates = {'JAX 8x8x8': 150e9, 'PyTorch 8x8x8': 195e9}
    report.Figures(path, config).add_products('float32', rates)
    report.Figures(path, config).add_products('bfloat16', rates)
    assert json.loads(path.read_text())['products'] == {'float32': rates, 'bfloat16': rates}
    assert report.format_products('float32', rates).endswith('PyTorch 8x8x8 195 GFLOP/s')


def test_figures_of_other_sizes_are_not_mixed(tmp_path):
    path, config = tmp_path / 'figures.json', default_config()
    report.Figures(path, config).add(ROW)
    config.model.text.depth = 6
    with pytest.raises(StageError, match='choose another --out'):
        report.Figures(path, config)


def test_points_of_a_sweep_are_sorted_and_plotted(tmp_path):
    figures = report.Figures(tmp_path / 'figures.json', default_config())
    for value in (4, 1, 2, 2):
        figures.add_to_sweep('batch', ROW | {'value': value})
        figures.add_to_sweep('questions', ROW | {'value': value})
    assert [point['value'] for point in figures.sweeps['batch']] == [1, 2, 4]
    sweeps.plot(figures.sweeps, tmp_path / 'sweeps.png')
    assert (tmp_path / 'sweeps.png').read_bytes().startswith(b'\x89PNG')


def test_the_table_omits_empty_columns():
    lines = report.format_table([ROW, COMPILE]).splitlines()
    names = [name.strip() for name in lines[0].strip('|').split('|')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]
    first, second = (dict(zip(names, row)) for row in cells)
    assert first['JAX s'] == '0.5 ±1%' and first['x PyTorch'] == '3' and first['GFLOP/s'] == '4'
    assert first['of peak'] == '50%' and first['JAX GiB'] == '2' and first['compile s'] == '12'
    assert second['from cache s'] == '6' and second['JAX s'] == ''
    assert 'x one question' not in names


def test_the_same_work_and_the_same_result_have_separate_tables():
    shared = ROW | {'work': 'five questions', 'kind': 'same result'}
    tables = report.format_tables([shared, COMPILE, ROW]).split(':\n\n')
    assert [each.splitlines()[-1] for each in tables[:-1]] == [
        'The same work on every side',
        'The same result, each side in its best way',
        'JAX alone',
    ]
    for text, name in zip(tables[1:], ('a step', 'five questions', 'compile of it')):
        assert [line for line in text.splitlines() if line.startswith('| ')][1].startswith(
            f'| {name} '
        )


def test_a_point_of_a_sweep_names_its_value():
    row = ROW | {'work': 'remat_policy', 'value': 'inputs', 'planned_bytes': {'JAX': 3 * 2**29}}
    line = report.format_row(row)
    assert line.startswith('remat_policy = inputs [float32, kept]')
    assert 'JAX plans 1.5 GiB in addition to its inputs' in line


def test_peaks_are_shown_by_side():
    row = ROW | {'peak_bytes': {'JAX': None, 'PyTorch': 3 * 2**30}}
    header, _, line = report.format_table([row]).splitlines()
    assert 'PyTorch GiB' in header and 'JAX GiB' not in header and '| 3 ' in line


def test_five_questions_are_compared_with_one():
    row = ROW | {'of_one_question': 2.5, 'one_question_seconds': 0.2}
    assert 'five questions in 2.50 times the time of one (0.2 s; goal: at most 3.7)' in (
        report.format_row(row)
    )


def test_a_row_is_one_line():
    line = report.format_row(ROW)
    assert line.startswith('a step [float32, kept]: JAX 0.5 s (±1%)')
    assert '3.00 times as fast as PyTorch' in line and '50% of the fastest product' in line
    assert '60.0 s, from the cache 6.0 s' in report.format_row(COMPILE)
