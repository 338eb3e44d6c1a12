"""docs/fidelity.md: its modules and settings exist, and its quotes are the paper's."""

import ast
import re

import pytest

from amuse_jax.config import default_config
from tests.paths import ROOT, SHARED

PAGE = ROOT / 'docs/fidelity.md'
PAPER = SHARED / 'paper/amuse_paper.txt'
COLUMNS = ('where', 'the paper', 'here', 'why', 'setting')


def read_rows():
    """Return the rows of all tables as dicts."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith('|')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert {len(row) for row in cells} == {len(COLUMNS)}
    return [
        dict(zip(COLUMNS, row))
        for row in cells
        if tuple(row) != COLUMNS and set(''.join(row)) != {'-'}
    ]


ROWS = read_rows()


def name_of(row):
    return row['where']


def settings_in(text):
    """Return the settings in backticks, with the values that are given."""
    found = re.findall(r'`(?:--config\.)?([a-z_.]+)(?:=([^`]*))?`', text)
    return [(name, value) for name, value in found if '/' not in name]


@pytest.mark.parametrize('row', ROWS, ids=name_of)
def test_every_row_is_complete_and_names_a_module_that_exists(row):
    assert all(row.values())
    modules = re.findall(r'`([\w/]+\.py)`', row['here'])
    assert modules
    assert [name for name in modules if not (ROOT / 'amuse_jax' / name).is_file()] == []


@pytest.mark.parametrize('row', ROWS, ids=name_of)
def test_every_setting_exists_and_takes_its_value(row):
    found = settings_in(row['setting'])
    assert found or row['setting'] == 'none'
    for name, value in found:
        config = default_config()
        *sections, last = name.split('.')
        for section in sections:
            config = config[section]
        assert last in config, name
        if value:
            config[last] = ast.literal_eval(value)  # a config refuses a value of another type


@pytest.mark.parametrize('row', ROWS, ids=name_of)
def test_every_quote_is_in_the_paper(row):
    if not PAPER.exists():
        pytest.skip(f'{PAPER} is not here')
    paper = plain(PAPER.read_text())
    quotes = re.findall(r'"([^"]+)"', f'{row["the paper"]} {row["why"]}')
    assert [quote for quote in quotes if plain(quote) not in paper] == []


def plain(text):
    """Leave out line breaks and how mathematics is set, but keep letters and underscores."""
    text = re.sub(r'\\mu', 'μ', text)
    text = re.sub(r'\\(?:mathbf|text)\b|[\\${}]', '', text)
    return re.sub(r'\s+', '', text)
