import argparse
import collections
import io
import json
import tarfile

import numpy as np
import pytest
import safetensors.torch
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


def test_bfloat16_safetensors_become_float32(tmp_path):
    halves = {name: tensor.bfloat16() for name, tensor in tensors().items()}
    safetensors.torch.save_file(halves, tmp_path / 'x.safetensors')
    found = files.read(str(tmp_path / 'x.safetensors'))
    check_same(found)  # these numbers are exact in bfloat16
    assert {array.dtype for array in found.values()} == {np.dtype('float32')}


def test_trainable_parameters_are_read(tmp_path):
    torch.save({n: torch.nn.Parameter(t) for n, t in tensors().items()}, tmp_path / 'x.pt')
    check_same(files.read(str(tmp_path / 'x.pt')))


@pytest.mark.parametrize('name', ['x.safetensors', 'x.pth'])
def test_float8_weights_are_refused_by_name(tmp_path, name):
    state = tensors() | {'c.weight': torch.ones(2).to(torch.float8_e4m3fn)}
    save = safetensors.torch.save_file if name == 'x.safetensors' else torch.save
    save(state, tmp_path / name)
    with pytest.raises(
        StageError, match=r'(?i)its array c\.weight is .*8_e4m3.*; expected float32'
    ):
        files.read(str(tmp_path / name))


def averaged(state):
    """The state of torch.optim.swa_utils.AveragedModel."""
    return {'n_averaged': torch.tensor(3)} | {f'module.{n}': t for n, t in state.items()}


@pytest.mark.parametrize(
    'prefix', ['module.', 'model.', '_orig_mod.', 'backbone.', 'module._orig_mod.', 'model.module.']
)
def test_a_prefix_that_all_names_share_is_removed(tmp_path, prefix):
    state = {prefix + name: tensor for name, tensor in tensors().items()}
    torch.save({'state_dict': state}, tmp_path / 'x.pth')
    safetensors.torch.save_file(state, tmp_path / 'x.safetensors')
    for name in ('x.pth', 'x.safetensors'):
        check_same(files.read(str(tmp_path / name)))


def test_a_prefix_that_only_some_names_share_is_kept(tmp_path):
    state = {f'backbone.{name}': tensor for name, tensor in tensors().items()}
    torch.save(state | {'head.weight': torch.ones(1)}, tmp_path / 'x.pth')
    assert set(files.read(str(tmp_path / 'x.pth'))) == {*state, 'head.weight'}


def test_averages_of_the_weights_are_read(tmp_path):
    torch.save(averaged(tensors()), tmp_path / 'x.pth')
    check_same(files.read(str(tmp_path / 'x.pth')))
    raw = {name: tensor + 1 for name, tensor in tensors().items()}
    torch.save({'state_dict': raw, 'state_dict_ema': tensors()}, tmp_path / 'x.pth')
    check_same(files.read(str(tmp_path / 'x.pth')))


def test_a_checkpoint_with_a_trainers_arguments_and_scores_is_read(tmp_path):
    content = {
        'epoch': 3, 'args': argparse.Namespace(lr=0.1, model='swin'), 'metric': np.float64(81.5),
        'best': np.float32(0.5), 'state_dict': tensors(),
    }  # fmt: skip
    torch.save(content, tmp_path / 'model_best.pth.tar')
    check_same(files.read(str(tmp_path / 'model_best.pth.tar')))


def test_a_folder_of_save_pretrained_is_read(tmp_path):
    with pytest.raises(StageError, match=r'holds no checkpoint; expected model\.safetensors'):
        files.read(str(tmp_path))
    torch.save(tensors(), tmp_path / 'pytorch_model.bin')
    check_same(files.read(str(tmp_path)))
    save_file({name: array + 0 for name, array in ARRAYS.items()}, tmp_path / 'model.safetensors')
    (tmp_path / 'pytorch_model.bin').write_bytes(b'not read')
    check_same(files.read(str(tmp_path)))


def write_shards(folder):
    weight_map = {}
    for number, (name, array) in enumerate(ARRAYS.items(), 1):
        weight_map[name] = f'model-{number:05}-of-00002.safetensors'
        save_file({name: array}, folder / weight_map[name])
    index = folder / 'model.safetensors.index.json'
    index.write_text(json.dumps({'metadata': {'total_size': 32}, 'weight_map': weight_map}))
    return index, weight_map


def test_shards_with_an_index_are_read(tmp_path):
    index, weight_map = write_shards(tmp_path)
    check_same(files.read(str(tmp_path)))
    check_same(files.read(str(index)))
    with pytest.raises(
        StageError, match='is one of the 2 files of a checkpoint; name their folder'
    ):
        files.read(str(tmp_path / weight_map['a.weight']))
    (tmp_path / weight_map['a.weight']).unlink()
    with pytest.raises(StageError, match='no checkpoint at .*model-00001-of-00002'):
        files.read(str(tmp_path))


@pytest.mark.parametrize('name', ['../x.safetensors', '/x.safetensors', 3])
def test_an_index_names_only_files_beside_it(tmp_path, name):
    index, weight_map = write_shards(tmp_path)
    index.write_text(json.dumps({'weight_map': weight_map | {'c': name}}))
    with pytest.raises(StageError, match='expected the name of a file beside it|is no index'):
        files.read(str(tmp_path))


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
        ('x.pth', b'PK\x03\x04 cut', 'cannot be read: it is cut short, damaged'),
        ('x.pth', b'', 'it is empty.*download or copy it again'),
        ('x.pth', b'some words', 'cannot be read: it is cut short, damaged'),
        ('x.pth', b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'run git lfs pull'),
        ('x.safetensors', b'version https://git-lfs.github.com/spec/v1', 'run git lfs pull'),
        ('x.safetensors', b'<!DOCTYPE html><html>404', 'it is a web page'),
        ('weights', b'no ending', "the ending ''"),
        ('x.index.json', b'{}', 'is no index of a checkpoint'),
        ('x.txt', b'weights', "the ending '.txt'"),
    ],
)
def test_damaged_files_and_unknown_endings_are_reported(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError, match=sentence):
        files.read(str(tmp_path / name))


@pytest.mark.parametrize('name', ['x.safetensors', 'x.pth', 'old.pth'])
def test_half_a_file_is_called_cut_short_and_not_dangerous(tmp_path, name):
    state = {'a': torch.zeros(5000)}
    if name == 'x.safetensors':
        safetensors.torch.save_file(state, tmp_path / name)
    else:
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=name == 'x.pth')
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageError, match='not a complete|cut short') as error:
        files.read(str(tmp_path / name))
    message = str(error.value)
    assert 'download or copy it again' in message
    assert 'running code' not in message and '\n' not in message


@pytest.mark.filterwarnings('ignore:.torch:FutureWarning')
@pytest.mark.filterwarnings('ignore:.torch:UserWarning')
def test_a_pickled_model_and_torchscript_are_refused_with_the_right_advice(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'x.pt')
    with pytest.raises(StageError, match='class torch.nn.modules.linear.Linear.*its state_dict'):
        files.read(str(tmp_path / 'x.pt'))
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(traced, tmp_path / 'x.pt')
    with pytest.raises(StageError, match='TorchScript.*its state_dict'):
        files.read(str(tmp_path / 'x.pt'))


def test_an_archive_and_a_file_without_arrays_are_reported(tmp_path):
    with tarfile.open(tmp_path / 'x.pth.tar', 'w') as archive:
        archive.addfile(tarfile.TarInfo('weights.pth'), io.BytesIO())
    with pytest.raises(StageError, match='a tar archive; unpack it'):
        files.read(str(tmp_path / 'x.pth.tar'))
    torch.save({'state_dict': {}, 'epoch': 3}, tmp_path / 'x.pt')
    with pytest.raises(StageError, match='holds no arrays'):
        files.read(str(tmp_path / 'x.pt'))


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


def test_shards_on_the_hub_are_downloaded(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    write_shards(tmp_path)

    def download(name, file, **options):
        if not (tmp_path / file).exists():
            raise EntryNotFoundError('none')
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    check_same(files.read('someone/some-model'))
    (tmp_path / 'model-00002-of-00002.safetensors').unlink()
    with pytest.raises(StageError, match='no checkpoint at .*model-00002-of-00002'):
        files.read('someone/some-model')


def test_a_file_beside_a_checkpoint_is_found_or_downloaded(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    save_file(ARRAYS, tmp_path / 'model.safetensors')
    assert files.beside(str(tmp_path), 'tokenizer.json') is None
    (tmp_path / 'tokenizer.json').touch()
    for where in (tmp_path, tmp_path / 'model.safetensors'):
        assert files.beside(str(where), 'tokenizer.json') == tmp_path / 'tokenizer.json'
    snapshot = tmp_path / 'snapshot'
    snapshot.mkdir()

    def download(name, file, **options):
        if file == 'vocab.json':
            raise EntryNotFoundError('none')
        (snapshot / file).write_bytes((tmp_path / file).read_bytes())
        return str(snapshot / file)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    assert files.beside('someone/some-model', 'tokenizer.json') == snapshot / 'tokenizer.json'
    assert files.beside('someone/some-model', 'vocab.json') is None
