"""What is missing or does not fit is said before any video is read: which file, from where."""

import importlib.util

import pytest
import safetensors.torch
import torch

from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from amuse_jax.features import audio_spectrogram, catalogue, resnet18, stage, torch_models
from tests.features import conftest


def settings(*arrays, **weights):
    config = default_config()
    config.features.arrays = arrays
    config.features.update(weights)
    return config


@pytest.mark.parametrize(
    ('array', 'name', 'file', 'place'),
    [
        ('vggish', 'vggish', 'vggish-10086976.pth', 'harritaylor/torchvggish on GitHub'),
        ('resnet18', 'resnet18', 'resnet18-5c106cde.pth', "torchvision's model zoo"),
        ('clip_words', 'clip', 'openai/clip-vit-base-patch32', 'the Hugging Face hub'),
        ('ast', 'ast', 'MIT/ast-finetuned-audioset-10-10-0.4593', 'the Hugging Face hub'),
    ],
)
def test_a_missing_file_is_named_with_its_place(array, name, file, place):
    with pytest.raises(StageError) as caught:
        stage.check(settings(array, 'fbank'))
    sentence = str(caught.value)
    assert f'{array} needs the weights' in sentence and file in sentence and place in sentence
    assert f'--config.features.{name}=' in sentence
    with pytest.raises(StageError) as caught:
        stage.check(settings(array, **{name: 'no/such/file.pth'}))
    sentence = str(caught.value)
    assert (
        'no checkpoint at no/such/file.pth' in sentence and file in sentence and place in sentence
    )


def test_every_missing_file_has_one_sentence_and_arrays_share_it():
    found = catalogue.missing_weights(settings('clip_frames', 'clip_words', 'vggish', 'fbank'))
    assert len(found) == 2 and found[1].startswith('clip_frames, clip_words need the weights')
    assert not catalogue.missing_weights(settings('fbank', 'log_mel_seconds'))
    stage.check(settings('fbank', 'log_mel_seconds'))


def test_a_missing_package_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'transformers' else find(name)
    )
    with pytest.raises(StageError, match=r'needs the package transformers.*\.\[features\]'):
        stage.check(settings('ast', ast='F'))


@pytest.mark.slow
def test_the_files_of_all_networks_pass_and_another_network_does_not(weights):
    """The check itself, which loads the weights in a process of its own."""
    stage.check(settings(*catalogue.ARRAYS, **vars(weights)))
    with pytest.raises(StageError, match='config.features.vggish: .* holds another model'):
        stage.check(settings('vggish', vggish=weights.resnet18))


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        (lambda state: state.pop('layer4.1.bn2.weight'), 'layer4.1.bn2.weight missing'),
        (lambda state: state.update(extra=torch.zeros(1)), 'extra unknown'),
        (
            lambda state: state.update({'fc.bias': torch.zeros(10)}),
            r'fc.bias is \(10,\) and should be \(1000,\)',
        ),
    ],
)
def test_other_weights_are_refused(weights, tmp_path, change, problem):
    path = conftest.save_changed(weights.resnet18, tmp_path / 'a.safetensors', change)
    with pytest.raises(
        StageError, match=f'another model.*{problem}.*expected the weights of ResNe'
    ):
        resnet18.Maps(str(path))


def test_prefixes_and_half_precision_are_read(weights, tmp_path):
    def change(state):
        for name in [*state]:
            state[f'module.{name}'] = state.pop(name).half()

    path = conftest.save_changed(weights.resnet18, tmp_path / 'a.safetensors', change)
    arrays = torch_models.read('resnet18', str(path))
    assert arrays.keys() == torch.load(weights.resnet18, weights_only=True).keys()
    tensors = torch_models.tensors(arrays)
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    resnet18.Maps(str(path))


def test_a_file_of_transformers_must_have_every_array(weights, tmp_path):
    arrays = safetensors.torch.load_file(f'{weights.ast}/model.safetensors')
    arrays = {name: value for name, value in arrays.items() if 'cls_token' not in name}
    (tmp_path / 'config.json').write_text(open(f'{weights.ast}/config.json').read())
    safetensors.torch.save_file(arrays, tmp_path / 'model.safetensors')
    with pytest.raises(StageError, match='cls_token missing.*MIT/ast-finetuned-audioset'):
        audio_spectrogram.Steps(str(tmp_path))
