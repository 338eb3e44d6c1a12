"""What the pages for readers name exists: files, links, modules and settings."""

import importlib.util
import re
import tomllib

import pytest
import yaml

from amuse_jax.config import default_config
from tests.paths import ROOT

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(ROOT.glob('docs/*.md'))]
# CHANGELOG.md also names what is gone.
LINKING = [*PAGES, ROOT / 'CHANGELOG.md']
CONFIGS = sorted(ROOT.glob('configs/*.py'))


def name_of(path):
    return str(path.relative_to(ROOT))


def metadata():
    return tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def test_the_readme_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 200


@pytest.mark.parametrize('page', LINKING, ids=name_of)
def test_every_link_leads_to_a_file(page):
    links = re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_every_link_to_a_heading_has_one(page):
    for name, anchor in re.findall(r'\]\(([^)#]*)#([^)]+)\)', page.read_text()):
        target = (page.parent / name if name else page).read_text()
        headings = re.findall(r'^#+ (.*)$', target, re.MULTILINE)
        anchors = [re.sub(r'[^\w\- ]', '', each.lower()).replace(' ', '-') for each in headings]
        assert anchor in anchors


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_every_file_that_is_named_exists(page):
    places = (ROOT, ROOT / 'amuse_jax')  # docs/internals.md leaves amuse_jax/ out
    names = re.findall(r'`([\w.-]+/[\w./-]+\.(?:py|sh|toml))`', page.read_text())
    assert [n for n in names if not any((place / n).exists() for place in places)] == []


@pytest.mark.parametrize('page', [*PAGES, *CONFIGS], ids=name_of)
def test_every_module_that_is_run_exists(page):
    for module in set(re.findall(r'python -m (amuse_jax[\w.]*)', page.read_text())):
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        if spec.submodule_search_locations is not None:
            assert importlib.util.find_spec(f'{module}.__main__') is not None, module


@pytest.mark.parametrize('page', [*PAGES, *CONFIGS], ids=name_of)
def test_every_setting_on_a_command_line_exists(page):
    for name in set(re.findall(r'--config\.([a-z0-9_.]+)', page.read_text())):
        value = default_config()
        for part in name.rstrip('.').split('.'):
            assert part in value, name
            value = value[part]


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_every_setting_in_a_sentence_exists(page):
    default = default_config()
    for name in set(re.findall(r'`(?:config\.)?([a-z]+(?:\.[a-z0-9_]+)+)[`=]', page.read_text())):
        section, *parts = name.split('.')
        if section not in default or parts[-1] in ('py', 'md', 'json', 'txt', 'safetensors'):
            continue
        value = default[section]
        for part in parts:
            assert part in value, name
            value = value[part]


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['cff-version'] == '1.2.0'
    assert {'message', 'title', 'authors'} <= citation.keys()
    assert citation['version'] == metadata()['version']
    assert citation['license'] == metadata()['license']


def test_the_hooks_download_nothing():
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    for repository in hooks['repos']:
        assert repository['repo'] == 'local'
        assert {hook['language'] for hook in repository['hooks']} == {'system'}
