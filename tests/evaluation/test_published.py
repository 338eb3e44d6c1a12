import math

import numpy as np
import pytest

from amuse_jax.evaluation import published, tables, test_sets


def find_row(table, name):
    (row,) = [r for r in published.read() if r.table == table and r.method.startswith(name)]
    return row


def averages(row, counts):
    """Return the averages by column, over `counts` questions of each type."""
    values = {column: row.row[column] for column in tables.TYPE_COLUMNS}
    questions = dict(zip(tables.TYPE_COLUMNS, counts))
    groups = {'A Avg': 'A ', 'V Avg': 'V ', 'AV Avg': 'AV ', 'Avg': ''}
    return {
        group: np.average(
            [values[c] for c in values if c.startswith(start)],
            weights=[questions[c] for c in values if c.startswith(start)],
        )
        for group, start in groups.items()
    }


def test_the_three_tables_are_complete():
    rows = published.read()
    assert [row.table for row in rows] == [2] * 7 + [3] * 5 + [4] * 5
    for row in rows:
        assert list(row.row) == list(tables.COLUMNS)
        absent = {column for column, value in row.row.items() if math.isnan(value)}
        assert absent == ({'A Avg', 'V Avg', 'AV Avg'} if 'LAST-Att' in row.method else set())
        assert all(0 < value < 100 for value in row.row.values() if value == value)
        assert row.source == f'Diao et al., 2024, Table {row.table}'
    assert find_row(2, 'Amuse').row == find_row(4, 'Amuse').row
    assert find_row(2, 'Amuse').row['Avg'] == 83.52 and find_row(3, 'Amuse').row['Avg'] == 85.16


def test_averages_of_two_rows_are_over_questions():
    update, first = (known.counts for known in test_sets.KNOWN if known.published == 'v1')
    # DG-SCT's code reads the first version of the files.
    for name, counts in (('AVST', update), ('DG-SCT', first)):
        row = find_row(2, name)
        for column, value in averages(row, counts).items():
            assert row.row[column] == pytest.approx(value, abs=0.011)
        assert published.inconsistent_averages(row) == set()


@pytest.mark.parametrize(
    ('table', 'name', 'columns'),
    [
        (2, 'LAVisH', {'A Avg', 'V Avg', 'AV Avg', 'Avg'}),
        (2, 'LAST-Att', set()),
        (2, 'Amuse', {'A Avg', 'V Avg', 'AV Avg', 'Avg'}),
        (3, 'AVST', {'A Avg', 'AV Avg', 'Avg'}),
        (3, 'LAST-Att', set()),
    ],
)
def test_averages_that_do_not_follow_from_their_parts_are_found(table, name, columns):
    assert published.inconsistent_averages(find_row(table, name)) == columns
    marked = published.marked([find_row(table, name)])[find_row(table, name).method]
    assert {column for column, cell in marked.items() if isinstance(cell, str)} == columns
    assert all(marked[column] == f'{find_row(table, name).row[column]:.2f}*' for column in columns)


def test_how_other_averages_were_computed():
    lstta = find_row(2, 'LSTTA').row
    for group in ('A', 'V', 'AV'):
        types = [lstta[c] for c in tables.TYPE_COLUMNS if c.startswith(f'{group} ')]
        assert lstta[f'{group} Avg'] == pytest.approx(np.mean(types), abs=0.011)
    for row in published.read():
        if row.table == 2 and 'Amuse' not in row.method or 'LAST-Att' in row.method:
            continue
        counting, comparing = row.row['A Count'], row.row['A Comp']
        value = 0.527 * counting + 0.473 * comparing
        assert row.row['A Avg'] == pytest.approx(value, abs=0.02), row
    balanced = next(known for known in test_sets.KNOWN if known.published == 'v2')
    for row in published.methods('v2'):
        if 'LAST-Att' not in row.method:
            expected = averages(row, balanced.counts)['V Avg']
            assert row.row['V Avg'] == pytest.approx(expected, abs=0.015)


def test_rows_are_shown_only_for_their_own_test_set():
    assert {row.table for row in published.methods('v1')} == {2}
    assert {row.table for row in published.methods('v2')} == {3}
    assert {row.table for row in published.ablations('v1')} == {4}
    assert published.methods('') == published.ablations('') == published.ablations('v2') == []
