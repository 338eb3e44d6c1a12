"""Missing files and packages are reported before any video is read, for pending stages alone."""

import importlib
import re

import huggingface_hub
import pytest

from amuse_jax.errors import StageError
from amuse_jax.run import plan, preflight
from configs import demo, synthetic, v1
from tests.data.small_set import row, write_rows

ALL = ('prepare', 'annotate', 'rois', 'pretrain', 'train', 'evaluate')


@pytest.fixture
def config(tmp_path):
    """Return the config v1 with everything that it needs as local files."""
    config = v1.get_config()
    (tmp_path / 'set').mkdir()
    for name in ('detector.pt', 'tagger.safetensors', 'visual.safetensors', 'text.safetensors'):
        (tmp_path / name).touch()
    (tmp_path / 'audio').mkdir()
    (tmp_path / 'audio' / 'tower.json').touch()
    config.data.root = str(tmp_path / 'set')
    config.rois.weights = str(tmp_path / 'detector.pt')
    config.sources.update(stems='tags', weights=str(tmp_path / 'tagger.safetensors'))
    config.checkpoints.update(
        visual=str(tmp_path / 'visual.safetensors'),
        audio=str(tmp_path / 'audio'),
        text=str(tmp_path / 'text.safetensors'),
    )
    config.model.text.tokenizer = 'questions'
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
