"""CLIP's tokens beside a plain description of both networks, and OpenAI's way of reading texts."""

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from transformers import CLIPModel

from amuse_jax.errors import StageError
from amuse_jax.features import clip
from amuse_jax.music_avqa import vocabulary
from tests.features import conftest

TEXTS = ['Is there a violin?', 'the', 'Where is the performance?']


def norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f'{name}.weight'], state[f'{name}.bias'], 1e-5)


def linear(state, name, x):
    return x @ state[f'{name}.weight'].T + state[f'{name}.bias']


def layer(state, name, x, mask):
    """A pre-norm layer with 4 heads and the GELU x sigmoid(1.702 x)."""
    y, heads = norm(state, f'{name}.layer_norm1', x), 4
    q, k, v = (
        linear(state, f'{name}.self_attn.{each}_proj', y).unflatten(-1, (heads, -1)).transpose(1, 2)
        for each in 'qkv'
    )
    weights = (q @ k.mT / q.shape[-1] ** 0.5 + mask).softmax(-1)
    y = (weights @ v).transpose(1, 2).flatten(2)
    x = x + linear(state, f'{name}.self_attn.out_proj', y)
    y = linear(state, f'{name}.mlp.fc1', norm(state, f'{name}.layer_norm2', x))
    return x + linear(state, f'{name}.mlp.fc2', y * torch.sigmoid(1.702 * y))


def see(state, images):
    """(n, 3, 224, 224) normalised -> (n, 50, 512): every token through the norm and projection."""
    name = 'vision_model.embeddings'
    patches = F.conv2d(images, state[f'{name}.patch_embedding.weight'], stride=32)
    patches = patches.flatten(2).mT
    first = state[f'{name}.class_embedding'].expand(len(images), 1, -1)
    x = torch.cat([first, patches], 1) + state[f'{name}.position_embedding.weight']
    x = norm(state, 'vision_model.pre_layrnorm', x)
    for index in (0, 1):
        x = layer(state, f'vision_model.encoder.layers.{index}', x, 0.0)
    return norm(state, 'vision_model.post_layernorm', x) @ state['visual_projection.weight'].T


def read(state, ids):
    """(n, 77) -> (n, 77, 512): each place sees itself and those before it, padding included."""
    name = 'text_model.embeddings'
    x = state[f'{name}.token_embedding.weight'][ids] + state[f'{name}.position_embedding.weight']
    mask = torch.full((77, 77), -torch.inf).triu(1)
    for index in (0, 1):
        x = layer(state, f'text_model.encoder.layers.{index}', x, mask)
    return norm(state, 'text_model.final_layer_norm', x) @ state['text_projection.weight'].T


@pytest.fixture(scope='module')
def state(weights):
    return safetensors.torch.load_file(f'{weights.clip}/model.safetensors')


def test_all_fifty_tokens_go_through_the_norm_and_the_projection(weights, state):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (60, 224, 224, 3), np.uint8)
    mask = np.arange(60) % 30 == 1  # two pictures
    found = clip.Pictures(weights.clip)(pictures, mask)
    frames, patches = found['clip_frames'], found['clip_patches']
    assert frames.shape == (60, 512) and patches.shape == (60, 49, 512)
    assert not frames[~mask].any() and not patches[~mask].any()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    images = ((torch.tensor(pictures[mask]) / 255 - mean) / std).movedim(-1, 1)
    expected = see(state, images).numpy()
    assert expected.std() > 0.1 and np.abs(expected[:, 1] - expected[:, 2]).max() > 0.1
    np.testing.assert_allclose(frames[mask], expected[:, 0], atol=1e-4)
    np.testing.assert_allclose(patches[mask], expected[:, 1:], atol=1e-4)
    model = CLIPModel.from_pretrained(weights.clip).eval()
    with torch.inference_mode():
        features = model.get_image_features(pixel_values=images)
    np.testing.assert_allclose(frames[mask], features.pooler_output.numpy(), atol=1e-4)


def test_words_and_questions_equal_the_plain_network(weights, state):
    found = clip.Questions(weights.clip)(TEXTS)
    # start, i s, t h e r e, a, v i o l i n, end; then the mark's place is empty
    ids, ends = clip.Questions(weights.clip).encode(TEXTS)
    assert ids.shape == (3, 77) and ids[1, 2:].tolist() == [ids[0, ends[0]], *[0] * 74]
    expected = read(state, torch.tensor(ids)).numpy()
    np.testing.assert_allclose(found['clip_words'], expected, atol=1e-4)
    np.testing.assert_allclose(found['clip_question'], expected[range(3), ends], atol=1e-4)
    model = CLIPModel.from_pretrained(weights.clip).eval()
    with torch.inference_mode():
        features = model.get_text_features(input_ids=torch.tensor(ids))
    np.testing.assert_allclose(found['clip_question'], features.pooler_output.numpy(), atol=1e-4)


def test_texts_are_read_in_lower_case_with_zeros_after_the_end(weights):
    questions = clip.Questions(weights.clip)
    words = json.loads((open(f'{weights.clip}/tokenizer.json')).read())['model']['vocab']
    ids, ends = questions.encode(['THE  cat?', 'a ' * 90])
    expected = ['<|startoftext|>', 'the</w>', 'c', 'a', 't</w>', '<|endoftext|>']
    assert ids[0].tolist() == [words[word] for word in expected] + [0] * 71
    assert ends.tolist() == [5, 76]  # a text that is too long keeps its end token
    assert ids[1, 76] == words['<|endoftext|>'] and ids[1, 75] == words['a</w>']


def test_only_the_mark_is_dropped():
    assert clip.without_mark('Is there a violin?') == 'Is there a violin'
    assert clip.without_mark('Name the first instrument') == 'Name the first instrument'
    assert clip.without_mark('') == ''
    assert all(template.strip()[-1] in '?\uff1f' for template in vocabulary.TEMPLATES)


def test_another_clip_and_one_without_its_tokeniser_are_refused(weights, tmp_path):
    other = conftest.write_clip(tmp_path / 'other', patch_size=16)
    with pytest.raises(StageError, match='patch_size is 16 instead of 32.*openai/clip-vit-base-p'):
        clip.Pictures(str(other))
    with pytest.raises(StageError, match='missing.*unknown.*expected the weights of CLIP'):
        clip.Pictures(make_without(weights.clip, tmp_path / 'part'))
    shutil.copytree(weights.clip, tmp_path / 'mute')
    (tmp_path / 'mute' / 'tokenizer.json').unlink()
    with pytest.raises(StageError, match='no tokenizer.json beside the weights.*clip-vit-base'):
        clip.Questions(str(tmp_path / 'mute'))


def make_without(source, target):
    """Copy a CLIP with one array under another name."""
    shutil.copytree(source, target)
    arrays = safetensors.torch.load_file(target / 'model.safetensors')
    arrays['visual_head.weight'] = arrays.pop('visual_projection.weight')
    safetensors.torch.save_file(arrays, target / 'model.safetensors')
    return str(target)
