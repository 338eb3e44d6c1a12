"""The stages of the peers: shared with Amuse before training, and separate from there on."""

import importlib

import pytest

from amuse_jax.config import setting
from amuse_jax.errors import StageError
from amuse_jax.models.peers import sizes
from amuse_jax.run import peers, plan, preflight, settings, status
from amuse_jax.run.results import Results
from amuse_jax.run.stage import write_manifest
from amuse_jax.training.peers.batches import INPUTS
from configs import demo

NAMES = tuple(sizes.SIZES)


def paper(name):
    return importlib.import_module(f'configs.peers.{name}').get_config()


def finish(config, workdir):
    """Write the manifests of all stages of a run that are missing."""
    stages = plan.build_stages(config)
    for name in missing(config, workdir):
        write_manifest(stages[name], config, workdir, stages, {})


def missing(config, workdir):
    stages = plan.build_stages(config)
    results = Results(config, workdir, stages)
    return [name for name in stages if not results.is_complete(name)]


@pytest.mark.parametrize('name', NAMES)
def test_the_demo_trains_every_peer_on_the_same_videos(name, tmp_path):
    config = peers.configs(demo.get_config())[name]
    settings.check(config)
    stages = plan.build_stages(config)
    shared = ['render', 'prepare', 'annotate', 'pretrain']
    assert list(stages)[:4] == shared and list(stages)[-2:] == ['train', 'evaluate']
    amuse = plan.build_stages(demo.get_config())
    for stage in shared:
        assert stages[stage].path(tmp_path) == amuse[stage].path(tmp_path)
    assert stages['train'].path(tmp_path).name == f'train-{name}'
    preflight.check(config, set(stages))


def test_amuse_and_the_peers_leave_each_others_results_as_they_are(tmp_path):
    config = demo.get_config()
    found = peers.configs(config)
    finish(config, tmp_path)
    assert missing(found['avst'], tmp_path) == ['stand_ins', 'train', 'evaluate']
    for each in found.values():
        finish(each, tmp_path)
    assert missing(config, tmp_path) == []
    assert all(missing(each, tmp_path) == [] for each in found.values())
    changed = found['avst'].copy_and_resolve_references()
    changed.peer.learning_rate = 7e-4
    assert missing(changed, tmp_path) == ['train', 'evaluate']
    config.peer.epochs = 77
    config.peers.lavish.epochs = 77
    assert missing(config, tmp_path) == []
    assert missing(peers.configs(config)['lavish'], tmp_path) == ['train', 'evaluate']
    config.train.epochs = 7
    assert missing(config, tmp_path) == ['train', 'evaluate']
    assert missing(found['dgsct'], tmp_path) == []
    config.model.audio.depths = (1, 1, 2, 2)
    after = peers.configs(config)
    assert missing(after['pstp_paper'], tmp_path)[:1] == ['pretrain']


def test_the_status_lists_the_folders_of_a_peer(tmp_path):
    config = peers.configs(demo.get_config())['last_att']
    finish(config, tmp_path)
    text = status.table(config, tmp_path, plan.build_stages(config))
    for name in ('stand_ins', 'train-last_att', 'evaluate-last_att'):
        assert name in text
    assert 'missing' not in text


@pytest.mark.parametrize('name', NAMES)
def test_a_config_names_the_features_that_its_peer_needs(name):
    config = paper(name)
    assert config.name == f'peers/{name}' and config.peer.name == name
    settings.check(config)
    peers.check(config)
    assert set(config.features.arrays) == set(INPUTS[name].arrays)
    stages = plan.build_stages(config)
    assert 'pretrain' not in stages and 'stand_ins' not in stages and 'rois' not in stages
    if config.features.arrays:
        config.features.arrays = ()
        with pytest.raises(StageError, match=f'without .* {name} needs'):
            peers.check(config)


@pytest.mark.parametrize(
    ('name', 'value', 'sentence'),
    [
        ('peer.name', 'avts', "config.peer.name is 'avts'; expected one of avst, pstp_released"),
        ('peer.name', 'avst_grounding', "'avst_grounding'; expected one of avst, pstp_released"),
        ('peer.inputs', 'random', "config.peer.inputs is 'random'; expected one of 'features'"),
        ('peer.epochs', 0, 'config.peer.epochs is 0; expected a positive number'),
        ('peer.trainable', '(', r"config.peer.trainable is '\(', which is not a regular express"),
        ('without', 'rois', "without is 'rois' and config.peer.name is 'lavish'; expected one"),
        ('evaluate.data.root', 'x', "evaluate.data.root is 'x', and config.peer.name is 'lavish'"),
        ('peer.grounding.epochs', 2, 'grounding.epochs is 2 for lavish; expected 0'),
    ],
)
def test_what_no_peer_can_do_is_refused(name, value, sentence):
    config = paper('lavish')
    config.update_from_flattened_dict({name: value})
    with pytest.raises(StageError, match=sentence):
        settings.check(config)
        plan.build_stages(config)


def test_a_frozen_tower_without_a_checkpoint_is_refused():
    config = paper('dgsct')
    config.checkpoints.visual = ''
    with pytest.raises(StageError, match='the visual tower of dgsct would keep its random weig'):
        preflight.check(config, {'prepare', 'train'})
    config.peer.trainable = ''
    config.checkpoints.audio = ''
    preflight.check(config, {'prepare', 'train'})


def test_weights_of_the_first_stage_are_for_avst_and_lavish():
    config = paper('dgsct')
    config.peer.grounding.weights = 'lavish_grounding_gen_best.pt'
    with pytest.raises(StageError, match='only AVST and LAVISH start from the weights of AVST'):
        settings.check(config)
    config = paper('lavish')
    config.peer.grounding.weights = 'nowhere.pt'
    settings.check(config)
    with pytest.raises(StageError, match='nowhere.pt'):
        peers.check_grounding(config)


def test_without_peers_the_command_says_where_they_are(tmp_path):
    config = paper('avst')
    with pytest.raises(StageError, match='config.peers names no system; expected --config=configs'):
        peers.configs(config)


# The values of facts that a reader of the papers and of the released code checks.
RECIPES = {
    'avst': dict(
        epochs=80, batch_size=64, learning_rate=1e-4, decay_every=8, match_weight=0.5, width=512,
    ),
    'pstp_released': dict(epochs=30, batch_size=64, learning_rate=1e-4, decay_every=8, width=512),
    'pstp_paper': dict(epochs=30, batch_size=64, learning_rate=1e-4, decay_every=10, width=512),
    'lavish': dict(
        epochs=30, batch_size=1, learning_rate=8e-5, decay_every=8, patience=5, match_weight=0.5,
    ),
    'dgsct': dict(
        epochs=80, batch_size=8, learning_rate=1e-4, decay_every=8, patience=3, match_weight=0.5,
        width=1536,
    ),
    'lstta': dict(learning_rate=8e-5, decay_every=0, weight_decay=0.01, match_weight=0.0),
    'last': dict(epochs=30, batch_size=1, learning_rate=8e-5, decay_every=8, match_weight=0.5),
    'last_att': dict(epochs=30, batch_size=1, learning_rate=8e-5, decay_every=8, match_weight=0.5),
}  # fmt: skip
PARTS = {
    ('avst', 'peer.grounding'): dict(epochs=30, batch_size=64, learning_rate=1e-4),
    ('pstp_released', 'peer.selection'): dict(segments=12, top_segments=2, top_patches=25),
    ('pstp_paper', 'peer.selection'): dict(segments=20, top_segments=7, top_patches=20),
    ('lavish', 'peer.adapter'): dict(latents=64, reduction=8, groups=4, audio_gate=True),
    ('dgsct', 'peer.adapter'): dict(latents=2, reduction=8, groups=4, audio_gate=False, base=0.7),
    ('lstta', 'peer.adapter'): dict(latents=64, hidden=512),
}
DATA = {
    'avst': 'v1-json', 'pstp_released': 'v1', 'pstp_paper': 'v1', 'lavish': 'v1-json',
    'dgsct': 'v1-json', 'lstta': 'v1-json', 'last': 'v2-balance', 'last_att': 'v2-balance',
}  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_a_config_has_the_recipe_of_its_paper_or_code(name):
    config = paper(name)
    assert {key: config.peer[key] for key in RECIPES[name]} == RECIPES[name]
    assert config.data.annotations == DATA[name]
    assert config.peer.inputs == 'features' and config.peer.questions == 1
    assert not any(config.peer.disturb.values()) and config.peer.dropout == 0.1
    for (owner, part), values in PARTS.items():
        if owner == name:
            section = setting(config, part)
            assert {key: section[key] for key in values} == values
