"""The picture of the packages in docs/ shows the imports of the present source code."""

import runpy
import xml.etree.ElementTree as ElementTree

import pytest

from tests.paths import ROOT

DESCRIPTION = '{http://purl.org/dc/elements/1.1/}description'


@pytest.fixture(scope='module')
def rooms():
    return runpy.run_path(str(ROOT / 'docs/rooms.py'))


def test_the_picture_is_up_to_date(rooms):
    found = rooms['as_text'](rooms['read_edges']())
    stored = ElementTree.parse(ROOT / 'docs/rooms.svg').find(f'.//{DESCRIPTION}').text
    assert stored == found, 'the imports have changed; run: python docs/rooms.py'


def test_every_package_has_a_place(rooms):
    names = {name for layer in rooms['read_layers']() for name in layer}
    assert {name for edge in rooms['read_edges']() for name in edge} <= names


def test_direct_edges_are_those_that_no_chain_replaces(rooms):
    edges = [('a', 'b'), ('a', 'c'), ('b', 'c'), ('b', 'd'), ('c', 'd')]
    assert rooms['find_direct'](edges) == {('a', 'b'), ('b', 'c'), ('c', 'd')}


def test_equal_inputs_give_equal_files(rooms, tmp_path):
    layers, edges = [['a'], ['b', 'c'], ['d']], [('a', 'b'), ('b', 'd'), ('c', 'd')]
    for name in ('first.svg', 'second.svg'):
        rooms['draw'](layers, edges, tmp_path / name)
    assert (tmp_path / 'first.svg').read_bytes() == (tmp_path / 'second.svg').read_bytes()
