import pytest

from amuse_jax.run import plan
from amuse_jax.run.stage import fingerprint
from configs import demo

OWN = ['render', 'prepare', 'annotate', 'rois', 'pretrain', 'train', 'evaluate']
OTHER = ['test_questions', 'test_prepare', 'test_rois', 'test_features']


def fingerprints(**changes):
    config = demo.get_config()
    config.update_from_flattened_dict({name.replace('__', '.'): v for name, v in changes.items()})
    found = plan.stages_of(config)
    return {name: fingerprint(stage, config, found) for name, stage in found.items()}


def test_another_data_set_adds_its_stages_behind_training(tmp_path):
    config = demo.get_config()
    assert list(plan.stages_of(config)) == OWN
    config.evaluate.data.root = str(tmp_path / 'my set')
    found = plan.stages_of(config)
    assert list(found) == [*OWN[:-1], *OTHER, 'evaluate']
    for index, stage in enumerate(found.values()):
        assert set(stage.needs) <= set(list(found)[:index])
    folders = [found[name].path(tmp_path) for name in [*OTHER, 'evaluate']]
    (together,) = {folder.parent for folder in folders}
    assert together.parent == tmp_path and together.name.startswith('on-my-set-plain-')
    assert found['train'].path(tmp_path) == tmp_path / 'train'
    config.without = 'rois'
    assert plan.stages_of(config)['evaluate'].path(tmp_path).name == 'evaluate-without-rois'


@pytest.mark.parametrize(
    ('changes', 'again'),
    [
        (dict(evaluate__data__root='b'), [*OTHER, 'evaluate']),
        (
            dict(seed=1),
            ['pretrain', 'train', 'test_questions', 'test_features', 'evaluate'],
        ),
        (dict(evaluate__leaked='apart'), ['test_questions', 'evaluate']),
        (dict(rois__min_score=0.5), ['rois', 'train', *OTHER[:1], *OTHER[2:], 'evaluate']),
        (dict(evaluate__examples=1), ['evaluate']),
    ],
)
def test_what_is_done_again_for_another_data_set(changes, again):
    before = fingerprints(evaluate__data__root='a')
    after = fingerprints(**{'evaluate__data__root': 'a', **changes})
    assert [name for name in before if before[name] != after[name]] == again
