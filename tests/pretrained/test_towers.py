import importlib
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx
from timm.models.swin_transformer_v2 import SwinTransformerV2
from transformers import BertConfig, BertModel, ClapAudioConfig
from transformers.models.clap.modeling_clap import ClapAudioModel

from amuse_jax.config import default_config
from amuse_jax.errors import NewerFormat, StageError
from amuse_jax.models import swin_v2
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.models.swin_v2 import SwinV2Config
from amuse_jax.pretrained import files, tagging, towers
from amuse_jax.pretrained import swin_v2 as names
from amuse_jax.pretrained.key_mapping import ConversionError
from amuse_jax.system.files import write_json
from amuse_jax.training import state
from amuse_jax.training.pretrain import stage as pretrain
from tests.paths import ROOT

SIZES = """
from amuse_jax.config import default_config

def get_config():
    c = default_config()
    tower = dict(patch=4, width=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), window=4)
    c.audio.mels = 32
    c.model.visual.update(tower, image_size=64)
    c.model.audio.update(tower, image_size=128)
    c.model.text.update(
        tokenizer='questions', max_words=16, width=16, depth=2, heads=2, mlp_width=32
    )
    return c
"""


@pytest.fixture(scope='module')
def config():
    scope = {}
    exec(SIZES, scope)
    return scope['get_config']()


@pytest.fixture(scope='module')
def checkpoints(config, tmp_path_factory):
    """A folder with a file of random weights for each part, saved from the original classes."""
    from amuse_jax.data.tokenizer import QuestionTokenizer

    folder = tmp_path_factory.mktemp('checkpoints')
    torch.manual_seed(0)
    visual, audio, text = (config.model[part] for part in towers.PARTS)
    models = {
        'visual': SwinTransformerV2(
            img_size=64, patch_size=4, embed_dim=8, depths=visual.depths, num_heads=visual.heads,
            window_size=4, num_classes=3,
        ),
        'audio': ClapAudioModel(
            ClapAudioConfig(
                spec_size=128, patch_size=4, patch_stride=4, patch_embeds_hidden_size=8,
                hidden_size=64, depths=audio.depths, num_attention_heads=audio.heads,
                window_size=4, num_mel_bins=32,
            )
        ),
        'text': BertModel(
            BertConfig(
                vocab_size=QuestionTokenizer(text).vocab_size, hidden_size=16, num_hidden_layers=2,
                num_attention_heads=2, intermediate_size=32,
            )
        ),
    }  # fmt: skip
    for part, model in models.items():
        torch.save(model.state_dict(), folder / f'{part}.pt')
    return folder


SAME = {
    'visual': ('patches.projection.bias', 'patch_embed.proj.bias'),
    'audio': ('patches.projection.bias', 'audio_encoder.patch_embed.proj.bias'),
    'text': ('words.embedding', 'embeddings.word_embeddings.weight'),
}


@pytest.mark.parametrize('part', towers.PARTS)
def test_a_part_of_the_config_is_filled_from_a_file(config, checkpoints, part):
    config = config.copy_and_resolve_references()
    assert towers.load(config, part) == {}
    config.checkpoints[part] = str(checkpoints / f'{part}.pt')
    arrays = towers.load(config, part)
    ours, theirs = SAME[part]
    np.testing.assert_array_equal(arrays[ours], files.read(config.checkpoints[part])[theirs])


def load_part(config, checkpoints, part):
    """Return a copy of the config that names this checkpoint, its tower and its own arrays."""
    config = config.copy_and_resolve_references()
    config.checkpoints[part] = str(checkpoints / f'{part}.pt')
    arrays = torch.load(config.checkpoints[part], weights_only=True)
    return config, towers.load(config, part), arrays


@pytest.mark.parametrize('part', towers.PARTS)
def test_bfloat16_safetensors_give_the_rounded_tower(config, checkpoints, tmp_path, part):
    config, exact, state = load_part(config, checkpoints, part)
    halves = {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}
    config.checkpoints[part] = str(tmp_path / 'model.safetensors')
    safetensors.torch.save_file(halves, config.checkpoints[part])
    rounded = towers.load(config, part)
    assert rounded.keys() == exact.keys()
    for name, array in rounded.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, exact[name], rtol=2**-8)


@pytest.mark.parametrize('part', towers.PARTS)
def test_a_model_under_a_prefix_beside_others_is_one_line(config, checkpoints, tmp_path, part):
    config, expected, state = load_part(config, checkpoints, part)
    config.checkpoints[part] = str(tmp_path / 'x.pth')
    shared = {f'module.backbone.{name}': tensor for name, tensor in state.items()}
    torch.save({'epoch': 1, 'state_dict': shared}, tmp_path / 'x.pth')
    jax.tree.map(np.testing.assert_array_equal, towers.load(config, part), expected)
    student = {f'student.{name}': tensor for name, tensor in state.items()}
    torch.save(student | {'teacher.x': torch.ones(1)}, tmp_path / 'x.pth')
    with pytest.raises(ConversionError, match='save its arrays alone, without the prefix') as error:
        towers.load(config, part)
    assert '\n' not in str(error.value) and 'teacher.x' in str(error.value)


def test_another_checkpoint_is_refused_in_a_few_lines(config, checkpoints):
    config = config.copy_and_resolve_references()
    config.checkpoints.visual = str(checkpoints / 'visual.pt')
    config.model.visual.width = 16
    with pytest.raises(ConversionError, match=r'and \d+ more') as error:
        towers.load(config, 'visual')
    assert len(str(error.value).splitlines()) <= 8


def test_a_tower_that_was_fine_tuned_with_larger_windows_matches_timm(config, tmp_path):
    """Its name is that of timm's models: trained with windows of 4 at 32 px, then 8 at 64 px."""
    config = config.copy_and_resolve_references()
    name = 'swinv2_tiny_window4to8_32to64'
    config.model.visual.update(window=8)
    sizes = config.model.visual
    torch.manual_seed(1)
    original = SwinTransformerV2(
        img_size=64, patch_size=4, embed_dim=8, depths=sizes.depths, num_heads=sizes.heads,
        window_size=8, pretrained_window_sizes=(4, 4, 2, 1), num_classes=0,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in original.parameters():  # the norms start at zero, so at an empty block
            parameter.add_(torch.rand_like(parameter) * 0.2)
    config.checkpoints.visual = str(tmp_path / f'{name}.pth')
    torch.save(original.state_dict(), config.checkpoints.visual)
    with pytest.raises(StageError, match=r'windows of 4, 4, 2, 1 tokens .* says 8, 8, 4, 2; set'):
        towers.load(config, 'visual')
    flag = '--config.model.visual.pretrained_windows="(4, 4, 2, 1)"'
    with pytest.raises(StageError, match=re.escape(flag)):
        towers.load(config, 'visual')
    sizes.pretrained_windows = (4, 4, 2, 1)
    loaded = towers.load(config, 'visual')
    tower = swin_v2.SwinV2(SwinV2Config(**sizes), rngs=nnx.Rngs(0))
    graphdef, variables = nnx.split(tower)
    paths = {'.'.join(map(str, path)): path for path, _ in nnx.to_flat_state(variables)}
    tower = nnx.merge(
        graphdef,
        nnx.from_flat_state((paths[n], nnx.Param(jax.numpy.asarray(a))) for n, a in loaded.items()),
    )
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = original.forward_features(torch.tensor(images).permute(0, 3, 1, 2))
    ours = jax.jit(lambda tower, x: tower(x).tokens)(tower, images)
    np.testing.assert_allclose(ours, theirs.flatten(1, 2).numpy(), atol=1e-5, rtol=1e-5)


HUGGING_FACE = {
    'model_type': 'swinv2', 'image_size': 64, 'patch_size': 4, 'embed_dim': 8,
    'depths': [1, 1, 2, 1], 'num_heads': [1, 2, 2, 4], 'window_size': 8,
    'pretrained_window_sizes': [4, 4, 2, 1],
}  # fmt: skip


@pytest.mark.parametrize(
    'description', [HUGGING_FACE, {'architecture': 'swinv2_tiny_window4to8_32to64'}]
)
def test_the_windows_of_a_folder_are_read_from_its_config(
    config, checkpoints, tmp_path, description
):
    config = config.copy_and_resolve_references()
    config.model.visual.window = 8
    state = torch.load(checkpoints / 'visual.pt', weights_only=True)
    safetensors.torch.save_file(state, tmp_path / 'model.safetensors')
    config.checkpoints.visual = str(tmp_path)
    assert towers.load(config, 'visual')  # nothing tells
    (tmp_path / 'config.json').write_text(json.dumps(description))
    with pytest.raises(StageError, match='windows of 4, 4, 2, 1 tokens'):
        towers.load(config, 'visual')
    config.model.visual.pretrained_windows = (4, 4, 2, 1)
    towers.write_converted(config, 'visual', towers.load(config, 'visual'), tmp_path / 'tower')
    config.checkpoints.visual = str(tmp_path / 'tower')
    assert towers.load(config, 'visual')
    config.model.visual.pretrained_windows = (0, 0, 0, 0)
    with pytest.raises(StageError, match='tower was trained with windows of 4, 4, 2, 1 tokens'):
        towers.load(config, 'visual')


@pytest.mark.parametrize(
    ('source', 'windows'),
    [
        ('timm/swinv2_large_window12to24_192to384.ms_in22k_ft_in1k', (12, 12, 12, 6)),
        ('microsoft/swinv2-large-patch4-window12to24-192to384-22kto1k-ft', (12, 12, 12, 6)),
        ('a/swinv2_base_patch4_window12to16_192to256_22kto1k_ft.pth', (12, 12, 12, 6)),
        ('microsoft/swinv2-tiny-patch4-window16-256', (16, 16, 16, 8)),
        ('timm/swinv2_large_window12_192.ms_in22k', (12, 12, 12, 6)),
        ('swinv2_base_window8_256/mine.pth', ()),
    ],
)
def test_published_names_state_the_windows(source, windows):
    assert names.stated_windows(source, {}) == windows


def test_every_named_size_has_the_windows_of_its_name():
    for name in ('swinv2_tiny_window8_256', 'swinv2_base_window12to16_192to256'):
        assert swin_v2.named(name).trained_windows == (names.stated_windows(name, {}),) * 2


def test_a_converted_folder_loads_as_the_original_file(config, checkpoints, tmp_path):
    sizes = tmp_path / 'sizes.py'
    sizes.write_text(SIZES)
    command = [
        sys.executable, '-m', 'amuse_jax.pretrained', 'convert', f'--config={sizes}',
        '--part=visual', f'--source={checkpoints / "visual.pt"}', f'--out={tmp_path / "tower"}',
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'M parameters' in done.stdout
    config = config.copy_and_resolve_references()
    config.checkpoints.visual = str(checkpoints / 'visual.pt')
    expected = towers.load(config, 'visual')
    config.checkpoints.visual = str(tmp_path / 'tower')
    found = towers.load(config, 'visual')
    assert found.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, dict(found), dict(expected))
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 1 and 'exists already' in again.stderr
    config.checkpoints.update(audio=str(tmp_path / 'tower'), visual='')
    with pytest.raises(StageError, match='holds a tower for visual; expected one for audio'):
        towers.load(config, 'audio')
    config.checkpoints.visual = str(tmp_path / 'tower')
    config.model.visual.width = 16
    with pytest.raises(StageError, match='does not match the sizes in config.model.visual'):
        towers.load(config, 'visual')
    kept = json.loads((tmp_path / 'tower/tower.json').read_text())
    write_json(tmp_path / 'tower/tower.json', kept | {'format': kept['format'] + 1})
    with pytest.raises(NewerFormat, match='tower has format 3, .* update amuse_jax'):
        towers.load(config, 'visual')


def test_an_error_on_the_command_line_is_one_sentence():
    command = [sys.executable, '-m', 'amuse_jax.pretrained', 'convert']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith('amuse_jax: convert needs --config')


@pytest.mark.slow
def test_converting_swin_v2_large_needs_less_than_three_times_its_size(tmp_path):
    """Measure peak memory above that of a process that has imported all packages."""
    config = SwinV2Config(**default_config().model.visual)
    shapes = {
        name: tensor
        for name, tensor in SwinTransformerV2(
            img_size=192, embed_dim=192, depths=config.depths, num_heads=config.heads,
            window_size=12, num_classes=0,
        ).state_dict().items()
    }  # fmt: skip
    torch.save(shapes, tmp_path / 'large.pth')
    size = sum(tensor.numel() * 4 for tensor in shapes.values())
    program = """
import resource, sys, jax, torch, timm
from amuse_jax.config import default_config
from amuse_jax.pretrained import towers
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
towers.from_source(default_config(), 'visual', sys.argv[1])
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""
    command = [sys.executable, '-c', program, str(tmp_path / 'large.pth')]
    peak = int(subprocess.check_output(command, cwd=ROOT, text=True))
    assert peak < 3 * size


def test_arrays_have_the_names_of_the_trained_towers(config, checkpoints):
    """Pretraining and training find the arrays that they replace under the names that they use."""
    config = config.copy_and_resolve_references()
    config.update(pretrain=dict(predictor_width=8))
    for part in towers.PARTS:
        config.checkpoints[part] = str(checkpoints / f'{part}.pt')
    encoder = nnx.eval_shape(lambda: pretrain.build(config, nnx.Rngs(0)))
    _, params, frozen = state.split(encoder, '')
    shapes = {name: array.shape for name, array in (params | frozen).items()}
    started = pretrain.init_towers(config, params | frozen)
    assert {name: array.shape for name, array in started.items()} == shapes
    changed = {name for name, array in started.items() if isinstance(array, np.ndarray)}
    assert changed == {name for name in shapes if name.startswith('pairs.')}


@pytest.mark.parametrize('name', ['v1', 'v2'])
def test_the_named_checkpoints_have_the_sizes_of_the_config(name):
    """The sizes are those of the original classes; test_full_size.py loads them into the towers."""
    config = importlib.import_module(f'configs.{name}').get_config()
    assert config.checkpoints.visual == 'timm/swinv2_large_window12_192.ms_in22k'
    large = swin_v2.named('swinv2_large_window12_192')
    assert SwinV2Config(**config.model.visual) == large
    assert config.checkpoints.audio == 'laion/clap-htsat-unfused'
    assert HTSATConfig(mels=config.audio.mels, **config.model.audio) == tagging.RELEASED
    assert config.checkpoints.text == f'google-bert/{config.model.text.tokenizer}'
    base, text = BertConfig(), config.model.text
    assert (text.width, text.depth, text.heads, text.mlp_width, text.epsilon) == (
        base.hidden_size, base.num_hidden_layers, base.num_attention_heads,
        base.intermediate_size, base.layer_norm_eps,
    )  # fmt: skip
    assert text.max_words <= base.max_position_embeddings
