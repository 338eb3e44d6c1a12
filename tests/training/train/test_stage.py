import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx

from amuse_jax.config import default_config
from amuse_jax.data import augment, pipeline
from amuse_jax.errors import StageError
from amuse_jax.evaluation import other_data
from amuse_jax.system import preemption
from amuse_jax.training import checkpoints, loop, state, stored
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering, leakage, predict
from amuse_jax.training.train import stage as train


def parts(config, inputs):
    model = answering.build(config, inputs['rois'], nnx.Rngs(config.seed))
    return state.split(model, config.train.trainable)


@pytest.mark.slow
def test_head_epochs_are_followed_by_epochs_with_open_adapters(trained):
    config, inputs, summary = trained
    rows = [json.loads(line) for line in (inputs['train'] / 'metrics.jsonl').open()]
    per_epoch = summary['steps'] // (config.train.head_epochs + config.train.epochs)
    epochs = [row['epoch'] for row in rows if 'val_accuracy' in row]
    assert epochs == list(range(1, config.train.head_epochs + config.train.epochs + 1))
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]
    rates = {row['step']: row['learning_rate'] for row in rows if 'loss' in row}
    assert rates[per_epoch] == pytest.approx(config.train.head_learning_rate)
    assert rates[summary['steps']] == pytest.approx(config.train.learning_rate)
    assert summary['best']['score'] == max(row.get('val_accuracy', 0) for row in rows)


@pytest.mark.slow
def test_frozen_towers_equal_those_of_the_source_encoder_bit_for_bit(trained):
    config, inputs, summary = trained
    _, params, frozen = parts(config, inputs)
    kept = checkpoints.read_frozen(inputs['train'] / 'frozen', frozen)
    _, pretrained = pretrain.load(config, inputs['pretrain'])
    assert kept and all(name.startswith(answering.TOWERS) for name in kept)
    for name, array in kept.items():
        np.testing.assert_array_equal(array, pretrained[name.replace('encoder', 'pairs')][1])
    after = checkpoints.read_params(inputs['train'] / 'checkpoints', params)
    moved = {name for name in params if (np.asarray(after[name]) != params[name]).any()}
    assert any('adapters' in name for name in moved)
    assert len(moved) > 0.8 * len(params)
    assert summary['trainable_parameters'] == sum(array.size for array in params.values())


@pytest.mark.slow
def test_stored_tokens_equal_those_of_the_towers(trained):
    config, inputs, _ = trained
    model = predict.load_best(config, inputs)
    graphdef, arrays = nnx.split(model)
    plain = answering.BatchSource(config, inputs, model.streams, None)
    stored = answering.BatchSource(config, inputs, model.streams, inputs['train'] / 'encoded')
    table = plain.table()
    for is_open in (False, True):
        batches = [
            next(iter(source.batches(table, 'val', 4, is_open=is_open).once()))
            for source in (plain, stored)
        ]
        assert 'frames' in batches[0] and 'frames' not in batches[1]
        prepare = jax.jit(
            lambda arrays, batch, is_open: answering.prepare_inputs(
                nnx.merge(graphdef, arrays), batch, is_open=is_open
            ),
            static_argnums=2,
        )
        found = [prepare(arrays, batch, is_open) for batch in batches]
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), *found)
        assert (found[0].question_free is None) != is_open


def test_full_memory_names_the_settings_that_need_less(pretrained, tmp_path, monkeypatch):
    config, inputs, _ = pretrained

    def fail(*arguments, is_open):
        raise MemoryError('RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes')

    monkeypatch.setattr(answering, 'loss', fail)
    with pytest.raises(StageError, match='train does not fit into the memory of the device') as e:
        train.run(config, tmp_path, inputs)
    for name in ('--config.train.parts=0', '--config.loop.remat_policy=inputs', 'batch_size'):
        assert name in str(e.value)
    assert "it is 'products'" in str(e.value)


def test_stored_tokens_get_only_the_augmentations_that_they_support():
    settings = default_config().train
    settings.update(mirror=0.5, gain_db=6.0, time_shift=0.25)

    def found(reader, *names):
        arrays = {name: np.zeros((1, 10, 4)) for name in names}
        batches = pipeline.QuestionBatches(None, 'train', 5, 8, arrays, reader)
        return train._supported_augmentation(settings, batches)

    assert found(object()) == augment.Augmentation(mirror=0.5, gain_db=6.0, time_shift=0.25)
    assert found(None, *answering.CLOSED) == augment.Augmentation(mirror=0.5, time_shift=0.25)
    assert found(None, *answering.QUESTION_FREE) == augment.Augmentation(time_shift=0.25)


@pytest.mark.slow
def test_a_complete_stage_is_not_repeated(trained):
    config, inputs, summary = trained
    before = (inputs['train'] / 'metrics.jsonl').read_text()
    assert train.run(config, inputs['train'], inputs) == summary
    assert (inputs['train'] / 'metrics.jsonl').read_text() == before


@pytest.mark.slow
def test_every_test_question_is_answered_once(trained):
    config, inputs, _ = trained
    found = list(predict.predict(config, inputs, 'test', inputs['train'] / 'encoded'))
    rows = json.loads((inputs['prepare'] / 'questions.json').read_text())
    expected = [(row['question_id'], row['record']) for row in rows if row['split'] == 'test']
    assert sorted((p.question.question_id, p.record) for p in found) == sorted(expected)
    for prediction in found:
        assert prediction.probabilities.shape == (42,)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert sum(prediction.importance.values()) == pytest.approx(1, abs=1e-5)
        assert list(prediction.importance)[0] == 'visual'
        assert prediction.region_weights.shape == (3, 2)
        assert prediction.time_weights['regions'].shape == (3,)


@pytest.mark.slow
def test_the_stage_saves_its_train_and_val_questions(trained):
    config, inputs, _ = trained
    questions = answering.BatchSource(config, inputs, (), None).table().questions
    known = [question.split in ('train', 'val') for question in questions]
    assert leakage.find_leaked(inputs['train'], questions).tolist() == known and not all(known)


@pytest.mark.slow
def test_videos_of_another_data_set_get_the_same_features_and_tokens(trained, tmp_path):
    """The run's own records, passed as another data set, give the same features and tokens."""
    config, inputs, _ = trained
    other = {'test_prepare': inputs['prepare'], 'test_rois': inputs['rois']}
    assert other_data.encode(config, tmp_path, inputs | other) == {'videos': 14}
    for ours, theirs in (
        (tmp_path / 'features', inputs['pretrain'] / 'features'),
        (tmp_path / 'encoded', inputs['train'] / 'encoded'),
    ):
        names = [path.stem for path in theirs.glob('*.npy')]
        assert len(names) >= 4
        first, second = stored.read(ours, names), stored.read(theirs, names)
        for name in names:
            np.testing.assert_array_equal(first[name], second[name])


def test_parts_that_do_not_divide_a_batch_are_refused_before_anything_is_done(tiny, tmp_path):
    config = tiny[0].copy_and_resolve_references()
    config.train.parts = 3
    with pytest.raises(StageError, match='4 videos in 3 parts .* a multiple of 3'):
        train.run(config, tmp_path, tiny[1])
    assert not list(tmp_path.iterdir())


def test_no_epochs_is_explained(tiny, tmp_path):
    config = tiny[0].copy_and_resolve_references()
    config.train.update(head_epochs=0, epochs=0)
    with pytest.raises(StageError, match='head_epochs'):
        train.run(config, tmp_path, tiny[1])


@pytest.mark.slow
@pytest.mark.parametrize('part', ['encoder', 'rhythm', 'sources', 'rois'])
def test_an_ablation_trains_and_answers(pretrained, tmp_path, part):
    config, inputs, _ = pretrained
    config = config.copy_and_resolve_references()
    config.without = part
    config.train.update(head_epochs=1, epochs=0 if part == 'encoder' else 1)
    train.run(config, tmp_path, inputs)
    inputs = inputs | {'train': tmp_path}
    found = list(predict.predict(config, inputs, 'test', tmp_path / 'encoded'))
    gone = {'encoder': 'visual', 'rhythm': 'rhythm_audio', 'sources': 'source_audio'}
    assert found and gone.get(part, 'regions') not in found[0].importance


@pytest.mark.slow
def test_towers_can_train_too(pretrained, tmp_path):
    config, inputs, _ = pretrained
    config = config.copy_and_resolve_references()
    config.train.update(trainable='.', head_epochs=1, epochs=1)
    summary = train.run(config, tmp_path, inputs)
    assert not (tmp_path / 'encoded').exists()
    assert summary['frozen_parameters'] == 32  # the statistics of 16 mel bands
    inputs = inputs | {'train': tmp_path}
    assert list(predict.predict(config, inputs, 'test', tmp_path / 'encoded'))


@pytest.fixture(scope='module')
def cached(pretrained, tmp_path_factory):
    """Train for two short phases with each `train.cache`; the folders by its value.

    'resumed' stops on the devices in the middle of the second phase, and goes on from the disk.
    """
    config, inputs, _ = pretrained
    config = config.copy_and_resolve_references()
    folders = {name: tmp_path_factory.mktemp(name) for name in ('disk', 'host', 'device')}
    folders['resumed'] = tmp_path_factory.mktemp('resumed')

    def run(cache, folder):
        with config.unlocked():
            config.model.dtype = 'bfloat16'
            config.train.update(head_epochs=1, epochs=2, time_shift=0.5, cache=cache)
        train.run(config, folder, inputs)

    def stop(run):
        if run.phase_index == 1 and run.step == run._first_step() + 2:
            run._save()
            raise preemption.Preempted

    for cache in ('disk', 'host', 'device'):
        run(cache, folders[cache])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(preemption.Preempted):
        patch.setattr(loop._Run, '_stop_on_notice', stop)
        run('device', folders['resumed'])
    run('disk', folders['resumed'])
    return config, inputs, folders


@pytest.mark.slow
@pytest.mark.parametrize('name', ['host', 'device', 'resumed'])
def test_the_place_of_the_tokens_does_not_change_the_result(cached, name):
    config, inputs, folders = cached
    _, params, _ = parts(config, inputs)
    expected, found = (
        checkpoints.read_params(folders[each] / 'checkpoints', params) for each in ('disk', name)
    )
    for parameter in params:
        np.testing.assert_array_equal(found[parameter], expected[parameter])


@pytest.mark.slow
def test_tokens_arrive_in_the_dtype_of_the_computation(cached):
    config, inputs, folders = cached
    source = answering.BatchSource(config, inputs, ('visual', 'audio'), folders['disk'] / 'encoded')
    for is_open, names in ((False, answering.CLOSED), (True, answering.QUESTION_FREE)):
        batch = next(iter(source.batches(source.table(), 'val', 4, is_open=is_open).once()))
        assert {batch[name].dtype.name for name in names} == {'bfloat16'}
