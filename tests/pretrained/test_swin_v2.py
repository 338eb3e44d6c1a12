import jax
import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
from flax import nnx
from timm.models.swin_transformer_v2 import SwinTransformerV2
from transformers import Swinv2Config, Swinv2ForImageClassification

from amuse_jax.models import swin_v2
from amuse_jax.models.swin_v2 import SwinV2, SwinV2Classifier, SwinV2Config
from amuse_jax.pretrained import key_mapping
from amuse_jax.pretrained import swin_v2 as names
from amuse_jax.pretrained.key_mapping import ConversionError

# Two stages have shifted windows; the bias of one of them was trained with larger windows.
CONFIG = SwinV2Config(64, 4, 8, (2, 1, 2, 1), (1, 2, 2, 4), 4, (0, 8, 8, 4))
CLASSES = 5
LARGE = SwinV2Config(192, 4, 192, (2, 2, 18, 2), (6, 12, 24, 48), 12)


def timm_model(config=CONFIG, classes=CLASSES, device='cpu'):
    with torch.device(device):
        return SwinTransformerV2(
            img_size=config.image_size,
            patch_size=config.patch,
            num_classes=classes,
            embed_dim=config.width,
            depths=config.depths,
            num_heads=config.heads,
            window_size=config.window,
            pretrained_window_sizes=config.pretrained_windows,
        ).eval()


def hugging_face_model(config=CONFIG, classes=CLASSES, device='cpu'):
    with torch.device(device):
        return Swinv2ForImageClassification(
            Swinv2Config(
                image_size=config.image_size,
                patch_size=config.patch,
                embed_dim=config.width,
                depths=config.depths,
                num_heads=config.heads,
                window_size=config.window,
                pretrained_window_sizes=config.pretrained_windows,
                num_labels=classes,
            )
        ).eval()


MODELS = {'timm': timm_model, 'hugging_face': hugging_face_model}


def random(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if 'norm' in name and name.endswith('weight') else 0.0, 0.2)
            if name.endswith('logit_scale'):
                parameter.uniform_(0.0, 2.0)
    return model


def arrays_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def rename_as_released(arrays):
    """Rename timm's current names to those of timm 0.6 and the original release, with buffers."""
    old = {}
    for name, array in arrays.items():
        if '.downsample.' in name:
            stage = int(name.split('.')[1])
            name = name.replace(f'layers.{stage}.', f'layers.{stage - 1}.')
        old[name.replace('head.fc.', 'head.')] = array
    old['layers.0.blocks.1.attn_mask'] = np.zeros((16, 16, 16), np.float32)
    old['layers.0.blocks.0.attn.relative_coords_table'] = np.zeros((1, 7, 7, 2), np.float32)
    old['layers.0.blocks.0.attn.relative_position_index'] = np.zeros((16, 16), np.int64)
    return old


def converted(arrays, classifier=True, config=CONFIG):
    build = SwinV2Classifier if classifier else SwinV2
    sizes = (CLASSES,) if classifier else ()
    abstract = nnx.eval_shape(lambda: build(config, *sizes, rngs=nnx.Rngs(0)))
    return key_mapping.fill(abstract, arrays, names.table(config, arrays, classifier))


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).normal(size=(3, 64, 64, 3)).astype(np.float32)


@pytest.mark.parametrize('naming', MODELS)
def test_logits_match_the_model_of_each_naming(naming, images):
    original = random(MODELS[naming]())
    model = converted(arrays_of(original))
    with jax.default_matmul_precision('highest'), torch.no_grad():
        ours = jax.jit(lambda model, x: model(x))(model, images)
        theirs = original(torch.tensor(images).permute(0, 3, 1, 2))
    theirs = theirs.logits if naming == 'hugging_face' else theirs
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5, rtol=1e-5)


def test_each_stage_matches_timm(images):
    original = random(timm_model())
    tower = converted(arrays_of(original), classifier=False)
    with jax.default_matmul_precision('highest'), torch.no_grad():
        output = jax.jit(lambda tower, x: tower(x))(tower, images)
        x = original.patch_embed(torch.tensor(images).permute(0, 3, 1, 2))
        for ours, layer in zip(output.stages, original.layers, strict=True):
            x = layer(x)
            np.testing.assert_allclose(ours, x.flatten(1, 2).numpy(), atol=1e-5, rtol=1e-5)


def test_each_block_matches_timm(images):
    original = random(timm_model())
    tower = converted(arrays_of(original), classifier=False)
    theirs = []
    for layer in original.layers:
        for block in layer.blocks:
            block.register_forward_hook(lambda _, __, x: theirs.append(x.flatten(1, 2).numpy()))
    with jax.default_matmul_precision('highest'), torch.no_grad():
        ours = jax.jit(lambda tower, x: tower.block_outputs(x))(tower, images)
        original(torch.tensor(images).permute(0, 3, 1, 2))
    assert [len(stage) for stage in ours] == list(CONFIG.depths)
    for x, y in zip([x for stage in ours for x in stage], theirs, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('classes', [0, CLASSES])
def test_a_tower_is_loaded_from_a_file(classes, tmp_path):
    arrays = arrays_of(random(timm_model()))
    safetensors.numpy.save_file(arrays, tmp_path / 'tower.safetensors')
    loaded = names.load(str(tmp_path / 'tower.safetensors'), CONFIG, classes)
    expected = converted(arrays, classifier=bool(classes))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded), nnx.state(expected))


PUBLISHED = [name for name in timm.list_models('swinv2_*') if not name.startswith('swinv2_cr')]


@pytest.mark.parametrize('name', PUBLISHED)
def test_named_sizes_match_timm(name):
    with torch.device('meta'):
        theirs = timm.create_model(name, num_classes=0)
    shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    config = swin_v2.named(name)
    model = nnx.eval_shape(lambda: SwinV2(config, rngs=nnx.Rngs(0)))
    assert not key_mapping.differences(model, arrays, names.table(config, arrays))
    windows = [layer.blocks[0].attn.pretrained_window_size[0] for layer in theirs.layers]
    assert windows == list(config.pretrained_windows)
    assert config.image_size == theirs.patch_embed.img_size[0]
    assert config.window == theirs.layers[0].blocks[0].window_size[0]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match='names no Swin-V2'):
        swin_v2.named('swinv2_huge_window8_256')


def test_the_older_names_of_the_original_release_give_the_same_model():
    arrays = arrays_of(random(timm_model()))
    new, old = (nnx.state(converted(names)) for names in (arrays, rename_as_released(arrays)))
    jax.tree.map(np.testing.assert_array_equal, new, old)


@pytest.mark.parametrize('naming', MODELS)
def test_every_name_of_the_full_size_is_used_or_ignored(naming):
    """Test Swin-V2-L at 192 px with the 21,841 classes of ImageNet-22k."""
    shapes = MODELS[naming](LARGE, 21841, 'meta').state_dict()
    arrays = {name: np.broadcast_to(np.float32(0), tensor.shape) for name, tensor in shapes.items()}
    model = nnx.eval_shape(lambda: SwinV2Classifier(LARGE, 21841, rngs=nnx.Rngs(0)))
    assert not key_mapping.differences(model, arrays, names.table(LARGE, arrays, classifier=True))


def test_sizes_of_another_model_are_reported():
    arrays = arrays_of(timm_model())
    wider = SwinV2Config(64, 4, 16, (2, 1, 2, 1), (1, 2, 2, 4), 4, (0, 8, 8, 4))
    with pytest.raises(ConversionError, match=r'patches.projection.kernel: \(48, 8\)'):
        converted(arrays, classifier=False, config=wider)
