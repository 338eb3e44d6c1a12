import json

import pytest

from amuse_jax.run import comparisons, format_1, plan
from amuse_jax.run.results import Results
from amuse_jax.run.stage import write_manifest
from configs import demo, v1

STAGES = ['render', 'prepare', 'annotate', 'rois', 'pretrain', 'train', 'evaluate']
TEST_STAGES = ['test_questions', 'test_prepare', 'test_rois', 'test_features']


def with_changes(**changes):
    config = demo.get_config()
    config.update_from_flattened_dict({name.replace('__', '.'): v for name, v in changes.items()})
    return config


def finish(config, workdir):
    """Write the manifests of all stages of a run."""
    stages = plan.build_stages(config)
    for stage in stages.values():
        write_manifest(stage, config, workdir, stages, {})


def missing(config, workdir):
    results = Results(config, workdir, plan.build_stages(config))
    return [name for name in plan.build_stages(config) if not results.is_complete(name)]


def test_another_data_set_adds_its_stages_after_training(tmp_path):
    config = demo.get_config()
    assert list(plan.build_stages(config)) == STAGES
    config.evaluate.data.root = str(tmp_path / 'my set')
    stages = plan.build_stages(config)
    assert list(stages) == [*STAGES[:-1], *TEST_STAGES, 'evaluate']
    for index, stage in enumerate(stages.values()):
        assert set(stage.needs) <= set(list(stages)[:index])
    folders = [stages[name].path(tmp_path) for name in [*TEST_STAGES, 'evaluate']]
    (parent,) = {folder.parent for folder in folders}
    assert parent.parent == tmp_path and parent.name.startswith('on-my-set-plain-')
    assert stages['train'].path(tmp_path) == tmp_path / 'train'
    config.without = 'rois'
    assert plan.build_stages(config)['evaluate'].path(tmp_path).name == 'evaluate-without-rois'


def test_features_are_a_stage_if_arrays_are_named(tmp_path):
    config = demo.get_config()
    config.features.arrays = ('fbank',)
    stages = plan.build_stages(config)
    assert list(stages) == [*STAGES[:4], 'features', *STAGES[4:]]
    assert stages['features'].is_kept and plan.shares_gpus(config, tmp_path, ['features'])
    finish(config, tmp_path)
    config.features.arrays = ('fbank', 'log_mel_seconds')
    assert missing(config, tmp_path) == ['features']
    config.features.arrays = ()
    assert missing(config, tmp_path) == []


@pytest.mark.parametrize(
    ('changes', 'repeated'),
    [
        (dict(evaluate__data__root='b'), [*TEST_STAGES, 'evaluate']),
        (
            dict(seed=1),
            ['pretrain', 'train', 'test_questions', 'test_features', 'evaluate'],
        ),
        (dict(evaluate__leaked='apart'), ['test_questions', 'evaluate']),
        (
            dict(rois__min_score=0.5),
            ['rois', 'train', *TEST_STAGES[:1], *TEST_STAGES[2:], 'evaluate'],
        ),
        (dict(evaluate__examples=1), ['evaluate']),
    ],
)
def test_a_changed_setting_repeats_stages_of_another_data_set(tmp_path, changes, repeated):
    finish(with_changes(evaluate__data__root='a'), tmp_path)
    after = with_changes(**{'evaluate__data__root': 'a', **changes})
    assert missing(after, tmp_path) == repeated


@pytest.mark.parametrize(
    ('redo', 'expected'),
    [([], []), (['train'], ['train', 'evaluate']), (['prepare'], ['prepare'])],
)
def test_stages_that_are_made_again_are_checked_with_what_depends_on_them(tmp_path, redo, expected):
    """After prepare, the content of the records decides."""
    config = demo.get_config()
    finish(config, tmp_path)
    assert [stage.name for stage in plan._pending_stages(config, tmp_path, (), redo)] == expected


def test_each_head_has_folders_of_its_own(tmp_path):
    """A workdir holds both, and none sets the other's results aside."""
    ours, paper = demo.get_config(), with_changes(model__head='paper')
    finish(ours, tmp_path)
    assert missing(paper, tmp_path) == ['train', 'evaluate']
    finish(paper, tmp_path)
    assert missing(ours, tmp_path) == missing(paper, tmp_path) == []
    assert (tmp_path / 'train-paper-head' / 'manifest.json').is_file()
    assert not [*tmp_path.glob('*.*')]


@pytest.mark.parametrize('name', ['train', 'evaluate'])
def test_no_two_rows_of_table_4_share_a_folder(tmp_path, name):
    folders = [
        plan.build_stages(variant)[name].path(tmp_path)
        for head in ('ours', 'paper')
        for variant in comparisons.configs(with_changes(model__head=head), ['ablations'])
    ]
    assert len(set(folders)) == 10
    assert tmp_path / f'{name}-paper-head-without-rois' in folders


def test_results_that_training_made_are_kept():
    config = with_changes(evaluate__data__root='a')
    kept = {name for name, stage in plan.build_stages(config).items() if stage.is_kept}
    assert kept == {'annotate', 'rois', 'pretrain', 'train', 'evaluate'}


def test_the_first_command_on_results_of_format_1_keeps_them(tmp_path):
    config = demo.get_config()
    finish(config, tmp_path)
    stages, hashes = plan.build_stages(config), {}
    for name, stage in stages.items():
        path = stage.path(tmp_path) / 'manifest.json'
        settings = json.loads(path.read_text())['settings']
        needs = {need: hashes[need] for need in stage.needs if need in stages}
        hashes[name] = format_1.fingerprint(name, settings, needs)
        old = {'format': 1, 'stage': name, 'fingerprint': hashes[name], 'settings': settings}
        path.write_text(json.dumps(old | {'summary': {}}))
    assert missing(config, tmp_path) == []
    plan.run(config, tmp_path, ['train'])
    manifests = [
        json.loads((stage.path(tmp_path) / 'manifest.json').read_text())
        for stage in stages.values()
    ]
    assert {manifest['format'] for manifest in manifests} == {2}
    assert [manifest['format_1'] for manifest in manifests] == list(hashes.values())
    assert missing(config, tmp_path) == []
    config.train.epochs = 9
    assert missing(config, tmp_path) == ['train', 'evaluate']


def test_gpus_are_shared_while_other_processes_need_them(tmp_path):
    config = v1.get_config()
    assert plan.shares_gpus(config, tmp_path, [])
    assert plan.shares_gpus(config, tmp_path, ['annotate'])
    assert plan.shares_gpus(config, tmp_path, ['ask'])
    assert not plan.shares_gpus(config, tmp_path, ['pretrain', 'train', 'evaluate'])
    config.sources.stems = 'truth'
    assert not plan.shares_gpus(config, tmp_path, ['annotate'])
    assert not plan.shares_gpus(config, tmp_path, ['status'])


def test_ablations_and_stages_that_are_made_again_share_the_gpus(tmp_path):
    config = demo.get_config()
    assert plan.shares_gpus(config, tmp_path, ['ablations'])
    finish(config, tmp_path)
    assert not plan.shares_gpus(config, tmp_path, ['ablations'])
    assert not plan.shares_gpus(config, tmp_path, [])
    assert plan.shares_gpus(config, tmp_path, [], ['rois'])
    assert plan.shares_gpus(config, tmp_path, [], ['render'])
    assert not plan.shares_gpus(config, tmp_path, [], ['train'])
