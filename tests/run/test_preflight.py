"""Missing files and packages are reported before any video is read, for pending stages alone."""

import importlib
import re

import huggingface_hub
import pytest
import safetensors.torch
import torch
import torchvision
from timm.models.swin_transformer_v2 import SwinTransformerV2
from transformers import BertConfig, BertModel

from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.models.htsat import HTSATConfig
from amuse_jax.pretrained import separation, tagging
from amuse_jax.regions import detector
from amuse_jax.run import plan, preflight
from amuse_jax.system.files import write_json
from configs import demo, synthetic, v1
from tests.data.small_set import row, write_rows
from tests.pretrained import original_htsat as htsat

ALL = ('prepare', 'annotate', 'rois', 'pretrain', 'train', 'evaluate')
TAGGER = HTSATConfig(256, 8, 8, (1, 1, 1, 1), (1, 2, 2, 4), 4)  # as small as it can be


def small_v1():
    """Return the config v1 with small towers."""
    config = v1.get_config()
    tower = dict(width=8, depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), window=4)
    config.model.visual.update(tower, image_size=64)
    config.model.audio.update(tower)
    config.model.text.update(
        tokenizer='questions', max_words=16, width=16, depth=2, heads=2, mlp_width=32
    )
    return config


@pytest.fixture(scope='module')
def weights():
    """Random weights of the small visual and text tower, by part, from the original classes."""
    config = small_v1().model
    visual = SwinTransformerV2(
        img_size=64, patch_size=4, embed_dim=8, depths=config.visual.depths,
        num_heads=config.visual.heads, window_size=4, num_classes=0,
    )  # fmt: skip
    text = BertModel(
        BertConfig(
            vocab_size=QuestionTokenizer(config.text).vocab_size, hidden_size=16,
            num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        )
    )  # fmt: skip
    tagger = {f'sed_model.{name}': array for name, array in htsat.draw(TAGGER, 527).items()}
    return {'visual': visual.state_dict(), 'text': text.state_dict(), 'tagger': tagger}


@pytest.fixture(scope='module')
def detector_file(tmp_path_factory):
    """The file of a small detector, and the size of its features."""
    path, model = tmp_path_factory.mktemp('detector') / 'a.pt', detector.build(['a'], 0.125, 0.33)
    detector.save(model, path)
    return path, sum(detector.map_channels(model))


@pytest.fixture
def config(tmp_path, weights, detector_file, monkeypatch):
    """Return the config v1 with small towers and everything that it needs as local files."""
    config = small_v1()
    (tmp_path / 'set').mkdir()
    monkeypatch.setattr(tagging, 'RELEASED', TAGGER)
    for part, state in weights.items():
        state = {name: torch.as_tensor(array).contiguous() for name, array in state.items()}
        safetensors.torch.save_file(state, tmp_path / f'{part}.safetensors')
    (tmp_path / 'audio').mkdir()
    sizes = config.model.audio.to_dict()
    write_json(tmp_path / 'audio' / 'tower.json', {'format': 2, 'part': 'audio', 'sizes': sizes})
    config.data.root = str(tmp_path / 'set')
    config.rois.weights, config.rois.feature_size = str(detector_file[0]), detector_file[1]
    config.sources.update(stems='tags', weights=str(tmp_path / 'tagger.safetensors'))
    config.checkpoints.update(
        visual=str(tmp_path / 'visual.safetensors'),
        audio=str(tmp_path / 'audio'),
        text=str(tmp_path / 'text.safetensors'),
    )
    return config


@pytest.fixture
def hub(monkeypatch):
    """Make the hub unreachable, and return the list of the names that are requested from it."""
    requested = []

    def refuse(name, file, **options):
        requested.append(name)
        raise ConnectionError('no route to host')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', refuse)
    return requested


def test_local_files_pass(config, hub):
    preflight.check(config, ALL)
    for rendered in (demo.get_config(), synthetic.get_config()):
        preflight.check(rendered, set(ALL) - {'train'})
    preflight.check(demo.get_config(), ALL)
    assert not hub


@pytest.mark.parametrize(
    ('name', 'value', 'stage', 'sentence'),
    [
        (
            'rois.weights',
            '',
            'rois',
            'no boxes to train a detector on (truth/*.json for videos of the train split); set',
        ),
        ('rois.weights', 'no/such.pt', 'rois', 'rois.weights: there is no file no/such.pt'),
        ('sources.weights', '', 'annotate', "is 'tags', but config.sources.weights is empty"),
        ('sources.weights', 'no/such.ckpt', 'annotate', 'no checkpoint at no/such.ckpt'),
        ('sources.stems', 'truth', 'annotate', 'has no truth/*.json: only rendered performances'),
        ('checkpoints.visual', 'no/such.pt', 'pretrain', 'no checkpoint at no/such.pt'),
        ('checkpoints.audio', 'no/such.pt', 'train', 'no checkpoint at no/such.pt'),
        ('checkpoints.text', 'a/b', 'train', 'a/b could not be fetched from the hub'),
        (
            'model.text.tokenizer',
            'no/such/vocab.txt',
            'train',
            'there is no file no/such/vocab.txt',
        ),
        ('checkpoints.visual', '', 'train', 'the visual tower would keep its random weights'),
        ('checkpoints.audio', '', 'train', 'the audio tower would keep its random weights'),
    ],
)
def test_a_missing_file_is_named_for_the_stages_that_read_it(
    name, value, stage, sentence, config, hub
):
    config.update_from_flattened_dict({name: value})
    with pytest.raises(StageError, match=re.escape(sentence)):
        preflight.check(config, [stage])
    with pytest.raises(StageError, match=re.escape(sentence)):
        preflight.check(config, ALL)
    read_by = (
        {'pretrain', 'train'} if name in ('checkpoints.visual', 'checkpoints.audio') else {stage}
    )
    preflight.check(config, set(ALL) - read_by)


@pytest.mark.parametrize(
    ('name', 'value', 'sentence'),
    [
        ('model.visual.width', 16, 'patches.projection.kernel: (48, 8) in the checkpoint'),
        ('model.text.depth', 4, 'not in the checkpoint, needed for stack'),
        ('model.audio.width', 16, 'the sizes in config.model.audio: width is 8; expected 16'),
        ('checkpoints.visual', 'text.safetensors', 'has a name of this model'),
        ('checkpoints.visual', 'half.safetensors', 'is not a complete safetensors file'),
        ('checkpoints.visual', 'empty.pth', 'it is empty'),
        ('checkpoints.audio', 'described', 'does not describe a converted checkpoint'),
        ('checkpoints.visual', 'audio', 'holds a tower for audio; expected one for visual'),
        (
            'checkpoints.visual',
            'swinv2_tiny_window2to4_32to64.safetensors',
            'was trained with windows of 2, 2, 2, 1 tokens',
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_loaded_is_found_before_the_first_stage(
    name, value, sentence, config, tmp_path
):
    whole = (tmp_path / 'visual.safetensors').read_bytes()
    (tmp_path / 'half.safetensors').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'swinv2_tiny_window2to4_32to64.safetensors').write_bytes(whole)
    (tmp_path / 'empty.pth').touch()
    (tmp_path / 'described').mkdir()
    (tmp_path / 'described' / 'tower.json').touch()
    is_path = name.startswith('checkpoints.')
    config.update_from_flattened_dict({name: str(tmp_path / value) if is_path else value})
    with pytest.raises(StageError, match=re.escape(sentence)):
        preflight.check(config, ['train'])
    preflight.check(config, ['prepare', 'annotate', 'rois'])


@pytest.mark.parametrize(
    ('name', 'value', 'stage', 'sentence'),
    [
        ('sources.weights', 'text.safetensors', 'annotate', 'has a name of this model, such as'),
        ('sources.weights', 'half.safetensors', 'annotate', 'is not a complete safetensors file'),
        ('sources.weights', 'empty.pth', 'annotate', 'it is empty'),
        ('rois.weights', 'empty.pt', 'rois', 'empty.pt cannot be read'),
        ('rois.weights', 'tagger.onnx', 'rois', 'does not end in .pt'),
        ('rois.weights', 'text.safetensors', 'rois', 'is no exported detector'),
        ('rois.feature_size', 448, 'rois', 'the three maps of this detector have 32 + 64 + 128'),
    ],
)
def test_a_tagger_or_detector_that_cannot_be_used_is_found_before_the_first_stage(
    name, value, stage, sentence, config, tmp_path
):
    whole = (tmp_path / 'tagger.safetensors').read_bytes()
    (tmp_path / 'half.safetensors').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'empty.pth').touch()
    (tmp_path / 'empty.pt').touch()
    (tmp_path / 'tagger.onnx').write_bytes(whole)
    is_path = name.endswith('.weights')
    config.update_from_flattened_dict({name: str(tmp_path / value) if is_path else value})
    with pytest.raises(StageError, match=re.escape(sentence)):
        preflight.check(config, ['prepare', stage])


def test_half_a_file_of_the_source_separation_is_found_before_the_first_stage(
    config, tmp_path, monkeypatch
):
    find_spec = importlib.util.find_spec  # the package itself is not needed for this
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: find_spec('numpy'))
    for name in (separation.TAGGER, separation.CHECKPOINT):
        torch.save({'model': torch.zeros(5000)}, tmp_path / name)
    config.sources.update(stems='uss', weights=str(tmp_path))
    preflight.check(config, ['annotate'])
    whole = (tmp_path / separation.CHECKPOINT).read_bytes()
    (tmp_path / separation.CHECKPOINT).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageError, match=f'{separation.CHECKPOINT} cannot be read: it is cut'):
        preflight.check(config, ['annotate'])
    config.sources.stems = 'uss-tags'
    preflight.check(config, ['annotate'])


def test_missing_weights_of_features_are_found_before_the_first_stage(config):
    config.features.arrays = ('resnet18', 'fbank')
    for value, sentence in (
        ('', 'resnet18 needs the'),
        ('no/such.pth', 'no checkpoint at no/such'),
    ):
        config.features.resnet18 = value
        with pytest.raises(StageError, match=f'{sentence}.* weights of ResNet-18: resnet18-5c106'):
            preflight.check(config, ['prepare', 'features'])
        preflight.check(config, ['prepare'])


@pytest.mark.slow
def test_other_weights_of_features_are_found_before_the_first_stage(config, tmp_path):
    pending = ['prepare', 'features']
    config.features.arrays = ('resnet18', 'fbank')
    config.features.resnet18 = str(tmp_path / 'text.safetensors')
    with pytest.raises(StageError, match='text.safetensors holds another model .*unknown'):
        preflight.check(config, pending)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / 'resnet18-f37072fd.pth')
    config.features.resnet18 = str(tmp_path / 'resnet18-f37072fd.pth')
    preflight.check(config, pending)


def test_boxes_in_the_data_set_replace_detector_weights(config, tmp_path):
    config.rois.weights = ''
    (tmp_path / 'set' / 'truth').mkdir()
    with pytest.raises(StageError, match='no boxes'):
        preflight.check(config, ['rois'])
    (tmp_path / 'set' / 'truth' / 'a.json').touch()
    config.data.annotations = 'plain'
    write_rows(tmp_path / 'set', row('b'), row('c'), row('a'))  # of train, val and test
    with pytest.raises(StageError, match='no boxes .* for videos of the train split'):
        preflight.check(config, ['rois'])
    (tmp_path / 'set' / 'truth' / 'b.json').touch()
    preflight.check(config, ['rois'])


def test_a_missing_package_is_named(config, monkeypatch, tmp_path):
    find_spec = importlib.util.find_spec
    missing = {'uss', 'ultralytics', 'torch'}
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name in missing else find_spec(name)
    )
    with pytest.raises(StageError, match=r"ultralytics is not installed; run pip install '\.\[off"):
        preflight.check(config, ['rois'])
    (tmp_path / 'visual.pt').touch()
    config.checkpoints.visual = str(tmp_path / 'visual.pt')
    with pytest.raises(
        StageError, match=r"visual\.pt needs PyTorch: run pip install '\.\[offline\]'"
    ):
        preflight.check(config, ['pretrain'])
    config.sources.update(stems='uss', weights='')
    with pytest.raises(StageError, match=r"uss is not installed; run pip install '\.\[uss\]'"):
        preflight.check(config, ['annotate'])
    config.data.beam = '--runner=FnApiRunner'  # the packages of its workers are not known here
    preflight.check(config, ['annotate'])


def test_a_tower_may_be_random_if_it_is_trained_or_replaced(config):
    config.checkpoints.update(visual='', audio='', text='')
    preflight.check(config, ['prepare', 'annotate', 'rois', 'pretrain'])
    with pytest.raises(StageError, match='the visual tower'):
        preflight.check(config, ['train'])
    config.without = 'encoder'
    preflight.check(config, ['train'])
    config.without = ''
    config.train.towers_from = 'sources'
    preflight.check(config, ['train'])
    config.train.trainable = 'adapters|answer'
    with pytest.raises(StageError, match='the text tower would keep its random weights'):
        preflight.check(config, ['train'])
    config.train.update(towers_from='', trainable='.')
    preflight.check(config, ['train'])


def test_a_run_checks_before_it_begins(tmp_path):
    config = demo.get_config()
    config.checkpoints.visual = str(tmp_path / 'gone.safetensors')
    with pytest.raises(StageError, match='no checkpoint at .*gone.safetensors'):
        plan.run(config, tmp_path / 'run', [])
    assert not (tmp_path / 'run').exists()
    with pytest.raises(StageError, match='prepare needs the stage render'):  # the stage's own check
        plan.run(config, tmp_path / 'run', ['prepare'])
