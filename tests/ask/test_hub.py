"""Names on the hub: the local cache, and sentences where the hub cannot be reached."""

import os
import subprocess
import sys

import pytest

from amuse_jax.ask import exported, hub, loading
from amuse_jax.errors import StageError
from tests.ask import hub_server
from tests.paths import ROOT


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder of the cache, laid out as huggingface_hub does; the hub is switched off."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where no folder has the name
    repository = tmp_path / 'models--someone--amuse'
    for name, commit in (('main', '1' * 40), ('v1', '2' * 40)):
        (repository / 'snapshots' / commit).mkdir(parents=True)
        (repository / 'refs').mkdir(exist_ok=True)
        (repository / 'refs' / name).write_text(commit)
        (repository / 'snapshots' / commit / 'config.json').write_text('{"settings": {}}')
    return repository / 'snapshots'


def test_the_cache_needs_no_network(cache):
    assert hub.download('someone/amuse') == cache / ('1' * 40)
    assert hub.download('someone/amuse', 'v1') == cache / ('2' * 40)


def test_a_name_is_read_as_an_exported_model(cache):
    with pytest.raises(StageError, match=f'{"2" * 40}/config.json does not describe a model'):
        loading.read('someone/amuse', 'v1')


@pytest.mark.parametrize(('name', 'revision'), [('someone/amuse', 'v2'), ('someone/other', None)])
def test_what_cannot_be_fetched_is_one_sentence(cache, name, revision):
    with pytest.raises(StageError, match=f'no folder {name}, and no model of that') as raised:
        loading.read(name, revision)
    assert '\n' not in str(raised.value) and 'give its path' in str(raised.value)


def test_other_repositories_are_refused(cache):
    (cache / ('1' * 40) / 'config.json').unlink()
    with pytest.raises(StageError, match='someone/amuse on .* has no config.json'):
        loading.read('someone/amuse')


@pytest.mark.parametrize('source', ['runs/demo/', '/runs/demo', '../runs', 'a', 'a/b/c', './a'])
def test_a_path_is_no_name(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match='there is no folder'):
        loading.read(source)


def test_a_folder_has_no_revision(tmp_path):
    with pytest.raises(StageError, match="is a folder, which has no revision 'v1'"):
        loading.read(str(tmp_path), 'v1')


def run(code, folder, address):
    """Run Python in a process whose hub is at `address` and whose cache is in `folder`."""
    folder.mkdir()
    variables = {
        'HF_ENDPOINT': address,
        'HF_HOME': str(folder / 'home'),
        'HF_TOKEN': 'hf_someone',
        'HF_HUB_DISABLE_XET': '1',
        'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=folder, env=os.environ | variables, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_a_model_travels_over_a_hub(make_trained, tmp_path):
    exported.write(make_trained(without='encoder'), tmp_path / 'model')
    files = {path.name: path.read_bytes() for path in (tmp_path / 'model').iterdir()}
    load = 'import amuse_jax; model = amuse_jax.load'
    with hub_server.serve() as (address, repositories):
        run(
            f'{load}({str(tmp_path / "model")!r}); model.push_to_hub("someone/amuse")',
            tmp_path / 'here',
            address,
        )
        pushed = repositories['someone/amuse']
        assert {name: pushed.get(name) for name in files} == files
        assert pushed.keys() - files.keys() <= {'.gitattributes'}
        run(
            f'{load}("someone/amuse"); model.save_pretrained("again")',
            tmp_path / 'there',
            address,
        )
    again = tmp_path / 'there/again'
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files
