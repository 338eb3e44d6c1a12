"""Random weights in the public files' formats, with the names of the public files."""

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torchvision import models
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
)

from amuse_jax.media import guarded
from tests.media import writing

media = writing.media  # the fixture
LIMITS = guarded.Limits(seconds=300, gigabytes=4)
# Names and shapes of vggish-10086976.pth.
VGGISH = {
    'features.0': (64, 1, 3, 3), 'features.3': (128, 64, 3, 3), 'features.6': (256, 128, 3, 3),
    'features.8': (256, 256, 3, 3), 'features.11': (512, 256, 3, 3),
    'features.13': (512, 512, 3, 3), 'embeddings.0': (4096, 12288), 'embeddings.2': (4096, 4096),
    'embeddings.4': (128, 4096),
}  # fmt: skip
LETTERS = 'abcdefghijklmnopqrstuvwxyz'


@dataclasses.dataclass(frozen=True)
class Files:
    """Where the weights of each setting are; the file of VGGish is large and not kept."""

    vggish: str
    resnet18: str
    clip: str
    ast: str


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    names = {
        'vggish': write_vggish(folder / 'vggish-10086976.pth'),
        'resnet18': write_resnet18(folder / 'resnet18-5c106cde.pth'),
        'clip': write_clip(folder / 'clip-vit-base-patch32'),
        'ast': write_ast(folder / 'ast'),
    }
    yield Files(**{name: str(path) for name, path in names.items()})
    names['vggish'].unlink()


def write_vggish(path: Path) -> Path:
    state = {}
    for name, shape in VGGISH.items():
        deviation = (2 / torch.tensor(shape[1:]).prod()) ** 0.5  # keeps the size of the numbers
        state[f'{name}.weight'] = torch.randn(shape) * deviation
        state[f'{name}.bias'] = 0.1 * torch.randn(shape[0])
    torch.save(state, path)
    return path


def write_resnet18(path: Path) -> Path:
    """Write weights as the older public file has them, without counters of batches."""
    state = models.resnet18().state_dict()
    for name, value in state.items():
        if name.endswith('running_mean'):
            value.normal_(0, 0.1)
        elif name.endswith('running_var'):
            value.uniform_(0.5, 2)
    torch.save({n: v for n, v in state.items() if not n.endswith('num_batches_tracked')}, path)
    return path


def write_clip(folder: Path, **vision) -> Path:
    """Write a small CLIP with the sizes of ViT-B/32's inputs and outputs, and its tokeniser."""
    words = ['!', '"', *LETTERS, *(f'{letter}</w>' for letter in LETTERS), 'th', 'the</w>']
    words += ['?</w>', '<|startoftext|>', '<|endoftext|>']
    ids = {word: index for index, word in enumerate(words)}
    start, end = ids['<|startoftext|>'], ids['<|endoftext|>']
    sizes = dict(num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    text = dict(sizes, hidden_size=48, vocab_size=len(words), bos_token_id=start, eos_token_id=end)
    config = CLIPConfig(text_config=text, vision_config=dict(sizes, hidden_size=64) | vision)
    CLIPModel(config).save_pretrained(folder)
    merges = [('t', 'h'), ('th', 'e</w>')]
    CLIPTokenizer(vocab=ids, merges=merges).save_pretrained(folder)
    return folder


def write_ast(folder: Path) -> Path:
    """Write the public class with its classifier, and one layer instead of twelve."""
    config = ASTConfig(num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
    model = ASTForAudioClassification(config)
    for name, parameter in model.named_parameters():
        is_scale = 'layernorm' in name and name.endswith('weight')
        parameter.data.normal_(1.0 if is_scale else 0.0, 0.05)
    model.save_pretrained(folder)
    return folder


def save_changed(source: str | Path, target: Path, change) -> Path:
    """Write a .pth file as safetensors after `change(state)`."""
    state = torch.load(source, weights_only=True)
    change(state)
    safetensors.torch.save_file(state, target)
    return target
