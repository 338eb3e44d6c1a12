import json

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from amuse_jax.benchmark.reference.peers import avst as reference_avst
from amuse_jax.benchmark.reference.peers import parts as reference_parts
from amuse_jax.models import building
from amuse_jax.models.peers import avst, sizes
from amuse_jax.training import checkpoints, loop, state
from amuse_jax.training.peers import answering, predict, stage
from amuse_jax.training.peers.batches import PeerBatches
from amuse_jax.training.train import leakage
from tests.training.peers.conftest import interrupted, peer_config
from tests.training.processes import read_metrics


def lines(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').open()]


def final(config, inputs):
    """Return the parameters of the newest checkpoint."""
    source = PeerBatches(config, inputs)
    model = building.shapes(lambda rngs: sizes.build(config, source.vocabulary, rngs))
    _, params, _ = state.split(model, config.peer.trainable)
    return checkpoints.read_params(inputs['train'] / 'checkpoints', params)


def test_grounding_epochs_come_first_and_then_the_loss_of_the_answers_falls(trained_avst):
    config, inputs, summary = trained_avst
    found = [line for line in lines(inputs['train']) if 'loss' in line]
    grounding = [line for line in found if line['loss'] == line['match']]
    asking = found[len(grounding) :]
    assert grounding[-1]['epoch'] == config.peer.grounding.epochs
    assert grounding[0]['match'] == pytest.approx(np.log(2), abs=0.05)  # knows nothing yet
    assert [line['learning_rate'] for line in grounding] == pytest.approx([1e-3] * len(grounding))
    assert asking[-1]['loss'] < 0.6 * asking[0]['loss']
    assert all(line['loss'] > 0.5 * line['match'] for line in asking)
    validated = [line for line in lines(inputs['train']) if 'val_accuracy' in line]
    assert [line['epoch'] for line in validated] == [3, 4, 5]
    assert summary['best']['score'] == max(line['val_accuracy'] for line in validated)
    assert all('val_match' not in line for line in validated)
    assert summary['frozen_parameters'] == 0 and summary['trainable_parameters'] > 7_000_000


def test_grounding_is_the_released_first_stage_and_touches_no_other_layer(trained_avst):
    config, inputs, _ = trained_avst
    source = PeerBatches(config, inputs)
    model = building.build(lambda rngs: sizes.build(config, source.vocabulary, rngs), config.seed)
    structure, params, _ = state.split(model, '')
    batch = jax.tree.map(jax.numpy.asarray, source.pairs()[0])

    def objective(params):
        return answering.ground(structure.merge(params), batch, None)[0]

    value, grads = jax.jit(jax.value_and_grad(objective))(params)
    moved = {name for name, grad in grads.items() if np.asarray(grad).any()}
    assert all(name.startswith(('audio.', 'head.grounding.')) for name in moved)
    assert len(moved) == 4 + 2 + 8  # two projections, the join, four layers of the match
    alone = avst.AVSTGrounding(model.config, rngs=nnx.Rngs(0))
    nnx.update(alone.audio, nnx.state(model.audio))
    nnx.update(alone.grounding, nnx.state(model.head.grounding))
    inputs = {name: batch[name].astype('float32') for name in ('audio', 'visual', 'negative')}
    own = jax.nn.log_softmax(alone.logits(inputs))[:, 1]
    other = jax.nn.log_softmax(alone.logits(inputs | {'visual': inputs['negative']}))[:, 0]
    weights = batch['weights']
    expected = -((own + other) / 2 * weights).sum() / weights.sum()
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_training_starts_from_the_weights_of_the_released_first_stage(features, tmp_path):
    """At a rate of almost zero it leaves them as they are."""
    first = reference_parts.randomise(reference_avst.AVSTGrounding(avst.AVSTConfig()))
    torch.save({f'module.{n}': x for n, x in first.state_dict().items()}, tmp_path / 'first.pt')
    grounding = dict(weights=str(tmp_path / 'first.pt'))
    config = peer_config('avst', epochs=1, learning_rate=1e-12, grounding=grounding)
    train = tmp_path / 'train'
    train.mkdir()
    stage.run(config, train, features)
    found = final(config, features | {'train': train})
    for ours, theirs in (
        ('audio.inner', first.fc_a1),
        ('audio.outer', first.fc_a2),
        ('head.grounding.join', first.fc_gl),
        ('head.grounding.match.3', first.fc4),
    ):
        expected = theirs.weight.detach().numpy().T
        np.testing.assert_allclose(found[f'{ours}.kernel'], expected, atol=1e-9)


def test_a_stopped_training_goes_on_to_the_same_result(trained_avst, tmp_path, monkeypatch):
    """Training stops in the second epoch of questions, and starts again from its checkpoint."""
    config, inputs, summary = trained_avst
    train_step = loop.train_step

    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, 'train_step', interrupted(train_step, summary['steps'] - 4, stop))
    with pytest.raises(KeyboardInterrupt):
        stage.run(config, tmp_path, inputs)
    monkeypatch.setattr(loop, 'train_step', train_step)
    assert stage.run(config, tmp_path, inputs) == summary
    assert read_metrics(tmp_path) == read_metrics(inputs['train'])
    calm, resumed = final(config, inputs), final(config, inputs | {'train': tmp_path})
    for name, array in calm.items():
        np.testing.assert_array_equal(array, resumed[name])


@pytest.mark.slow
def test_patience_ends_the_training_after_epochs_without_a_better_validation(features, tmp_path):
    config = peer_config('avst', epochs=9, patience=2, learning_rate=1e-12)
    summary = stage.run(config, tmp_path, features)
    validated = [line['epoch'] for line in lines(tmp_path) if 'val_accuracy' in line]
    assert validated == [1, 2, 3] and summary['best']['epoch'] == 1
    assert stage.run(config, tmp_path, features) == summary
    assert [line['epoch'] for line in lines(tmp_path) if 'val_accuracy' in line] == validated


def test_every_test_question_is_answered_once_and_better_than_by_chance(trained_avst):
    config, inputs, _ = trained_avst
    found = list(predict.predict(config, inputs, 'test'))
    rows = json.loads((inputs['prepare'] / 'questions.json').read_text())
    expected = [(row['question_id'], row['record']) for row in rows if row['split'] == 'test']
    assert sorted((p.question.question_id, p.record) for p in found) == sorted(expected)
    for prediction in found:
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert not prediction.importance and prediction.region_weights is None


def test_the_stage_saves_its_train_and_val_questions(trained_avst):
    config, inputs, _ = trained_avst
    questions = PeerBatches(config, inputs).table.questions
    known = [question.split in ('train', 'val') for question in questions]
    assert leakage.find_leaked(inputs['train'], questions).tolist() == known


@pytest.mark.parametrize(
    ('epoch', 'rate'), [(1, 1e-4), (8, 1e-4), (9, 1e-5), (16, 1e-5), (17, 1e-6), (24, 1e-6)]
)
def test_the_rate_falls_to_a_tenth_after_every_eighth_epoch(epoch, rate):
    peer = peer_config('avst', epochs=80, learning_rate=1e-4, decay_every=8).peer
    schedule = stage.schedule(peer, peer, 80 * 5)
    for step in (5 * (epoch - 1), 5 * epoch - 1):  # the first and the last step of the epoch
        assert float(schedule(step)) == pytest.approx(rate)


def test_without_a_number_of_epochs_the_rate_falls_along_a_cosine_to_zero():
    peer = peer_config('lstta', learning_rate=8e-5, decay_every=0).peer
    schedule = stage.schedule(peer, peer, 100)
    assert [float(schedule(step)) for step in (0, 50, 100)] == pytest.approx([8e-5, 4e-5, 0])


@pytest.mark.parametrize(
    'name', ['pstp_released', pytest.param('pstp_paper', marks=pytest.mark.slow)]
)
def test_pstp_learns_from_clip_features(features, tmp_path, name):
    config = peer_config(name, epochs=6, batch_size=9, width=32, learning_rate=1e-3)
    config.peer.selection.update(segments=12, top_segments=2, top_patches=5)
    stage.run(config, tmp_path, features)
    losses = [line['loss'] for line in lines(tmp_path) if 'loss' in line]
    assert losses[-1] < 0.8 * losses[0]
