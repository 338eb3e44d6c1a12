import json

import pytest

from amuse_jax.ask import loading
from amuse_jax.config import default_config
from amuse_jax.errors import StageError
from amuse_jax.run import made_from, plan
from amuse_jax.system import formats


def write_manifest(folder, name, config, **content):
    folder.mkdir(parents=True)
    stage = plan.build_stages(config)[name]
    made = made_from.describe(config, stage.settings, {})
    manifest = {'format': formats.FORMAT, 'stage': name, **made, 'summary': {}, **content}
    (folder / 'manifest.json').write_text(json.dumps(manifest))
    return folder


def test_settings_are_those_that_the_stages_were_made_with(tmp_path):
    config = default_config()
    config.data.update(segments=4, segment_seconds=3.0, root='/elsewhere')
    config.model.visual.depths = (1, 1, 2, 1)
    config.train.update(epochs=3, trainable='answer')
    config.pretrain.predictor_width = 7
    config.rois.update(regions=5, min_score=0.5)
    config.seed = 3
    folders = {name: write_manifest(tmp_path / name, name, config) for name in loading.NEEDED}
    found = loading.saved_config(folders)
    assert found.data.segments == 4 and found.data.segment_seconds == 3.0
    assert found.model == config.model and found.train == config.train
    assert found.pretrain == config.pretrain and found.rois == config.rois
    assert found.seed == 3 and found.data.root == ''  # answers do not depend on it


def test_the_results_are_those_that_the_model_was_made_from(tmp_path, monkeypatch):
    config, asked = default_config(), {}
    needs = {'prepare': 'p', 'rois': 'r', 'pretrain': 'old'}
    write_manifest(tmp_path / 'train', 'train', config, needs=needs)
    write_manifest(tmp_path / 'prepare', 'prepare', config, fingerprint='p')
    write_manifest(tmp_path / 'rois', 'rois', config, fingerprint='r')
    write_manifest(tmp_path / 'pretrain', 'pretrain', config, fingerprint='new')
    monkeypatch.setattr(loading, 'from_folders', lambda _, folders: asked.update(folders))
    with pytest.raises(StageError, match='holds no result of the stage pretrain that the model'):
        loading.read(str(tmp_path))
    aside = tmp_path / 'pretrain.2026-11-27-1'
    write_manifest(aside, 'pretrain', config, fingerprint='old')
    loading.read(f'{tmp_path}/')
    assert asked['pretrain'] == aside and asked['rois'] == tmp_path / 'rois'


def test_any_training_of_a_workdir_can_be_read(tmp_path, monkeypatch):
    config = default_config()
    found = []
    monkeypatch.setattr(loading, 'from_folders', lambda _, folders: found.append(folders['train']))
    for name in ('prepare', 'rois', 'pretrain'):
        write_manifest(tmp_path / name, name, config)
    paper = write_manifest(tmp_path / 'train-paper-head', 'train', config)
    loading.read(str(tmp_path))  # the only one
    other = write_manifest(tmp_path / 'train-without-rois', 'train', config)
    with pytest.raises(StageError, match='train-paper-head, train-without-rois.; name the folder'):
        loading.read(str(tmp_path))
    ours = write_manifest(tmp_path / 'train', 'train', config)
    for source in (tmp_path, paper, other):
        loading.read(str(source))
    assert found == [paper, ours, paper, other]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(StageError, match='there is no folder'):
        loading.read(str(tmp_path / 'none'))
    with pytest.raises(StageError, match='holds no trained model'):
        loading.read(str(tmp_path))
