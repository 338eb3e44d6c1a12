import collections

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from amuse_jax.errors import StageError
from amuse_jax.pretrained import files

ARRAYS = {
    'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b.bias': np.ones(2, np.float32),
}


def tensors():
    return {name: torch.from_numpy(array.copy()) for name, array in ARRAYS.items()}


def check_same(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def test_safetensors(tmp_path):
    save_file(ARRAYS, tmp_path / 'x.safetensors')
    check_same(files.read(str(tmp_path / 'x.safetensors')))


@pytest.mark.parametrize('name', ['x.pt', 'x.pth', 'x.bin'])
def test_plain_and_wrapped_dicts(tmp_path, name):
    for content in (tensors(), {'model': tensors(), 'epoch': 3}, {'state_dict': tensors()}):
        torch.save(content, tmp_path / name)
        check_same(files.read(str(tmp_path / name)))


def test_the_old_file_format(tmp_path):
    torch.save(tensors(), tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    check_same(files.read(str(tmp_path / 'x.pth')))


def test_the_tower_of_a_lightning_file_is_read_without_the_prefix(tmp_path):
    state = {f'sed_model.{name}': tensor for name, tensor in tensors().items()}
    content = {'state_dict': state | {'loss.weight': torch.ones(1)}, 'epoch': 1, 'callbacks': {}}
    torch.save(content, tmp_path / 'x.ckpt')
    check_same(files.read(str(tmp_path / 'x.ckpt')))


def test_bfloat16_becomes_float32(tmp_path):
    torch.save({'a': torch.ones(2, dtype=torch.bfloat16)}, tmp_path / 'x.pt')
    assert files.read(str(tmp_path / 'x.pt'))['a'].dtype == np.float32


class Payload:
    """An object that runs code when it is unpickled."""

    ran = False

    def __reduce__(self):
        return (setattr, (Payload, 'ran', True))


def test_nothing_is_unpickled(tmp_path):
    torch.save({'state_dict': tensors(), 'extra': Payload()}, tmp_path / 'x.pt')
    with pytest.raises(StageError, match='without running code'):
        files.read(str(tmp_path / 'x.pt'))
    assert not Payload.ran


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('x.safetensors', b'', 'not a complete safetensors file'),
        ('x.safetensors', b'\xff' * 100, 'not a complete safetensors file'),
        ('x.pth', b'PK\x03\x04 cut', 'cannot be read'),
        ('x.txt', b'weights', "the ending '.txt'"),
    ],
)
def test_damaged_files_and_unknown_endings_are_reported(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError, match=sentence):
        files.read(str(tmp_path / name))


def test_a_missing_file_and_a_list_are_reported(tmp_path):
    with pytest.raises(StageError, match='no checkpoint at'):
        files.read(str(tmp_path / 'x.safetensors'))
    torch.save([torch.ones(1)], tmp_path / 'x.pt')
    with pytest.raises(StageError, match='holds a list'):
        files.read(str(tmp_path / 'x.pt'))
    with pytest.raises(StageError, match='neither a checkpoint file nor a name on the hub'):
        files.read('just words')


def not_reached():
    from huggingface_hub.errors import LocalEntryNotFoundError

    return LocalEntryNotFoundError('cannot find the requested file in the local cache')


@pytest.mark.parametrize('error', [ConnectionError('no route to host'), not_reached()])
def test_a_hub_name_without_a_network_says_what_to_do(error, monkeypatch):
    import huggingface_hub

    def refuse(name, file, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', refuse)
    with pytest.raises(StageError, match='give the path of that file instead of the name'):
        files.read('microsoft/swinv2-tiny-patch4-window8-256')


def test_a_file_in_the_cache_is_read_without_a_network(tmp_path, monkeypatch):
    import huggingface_hub

    def cached(name, file):
        return str(tmp_path / file) if file == 'pytorch_model.bin' else None

    torch.save(tensors(), tmp_path / 'pytorch_model.bin')
    monkeypatch.setattr(huggingface_hub, 'try_to_load_from_cache', cached)
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', None)
    check_same(files.read('someone/some-model'))


def test_the_safetensors_file_on_the_hub_is_preferred(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    requests = collections.Counter()

    def download(name, file, **options):
        requests[file] += 1
        if file == 'model.safetensors':
            raise EntryNotFoundError('none')
        torch.save(tensors(), tmp_path / file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    check_same(files.read('someone/some-model'))
    assert list(requests) == ['model.safetensors', 'pytorch_model.bin']
