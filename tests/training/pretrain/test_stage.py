import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.data import pipeline, records
from amuse_jax.errors import StageError
from amuse_jax.models import building, universal_encoder
from amuse_jax.training import sharding, state, stored
from amuse_jax.training.pretrain import predictors
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import predict
from amuse_jax.training.train import stage as train


class Constant:
    """An encoder that always predicts the same values and stores its inputs."""

    def __init__(self, rhythm, sources):
        self.rhythm, self.sources = rhythm, sources

    def __call__(self, frames, log_mel):
        self.frames, self.log_mel = frames, log_mel
        return universal_encoder.UniversalOutput(
            None, None, None, None, rhythm=self.rhythm, sources=self.sources
        )


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    return {
        'frames': np.zeros((3, 2, 4, 4, 3), np.uint8),
        'log_mel': random.uniform(-60, 0, (3, 2, 5, 4)).astype(np.float16),
        'rhythm': random.uniform(size=(3, 2)).astype(np.float32),
        'sources': random.uniform(size=(3, 2, 22)).astype(np.float32),
        'rhythm_weights': np.ones((3, 2), np.float32),
        'source_weights': np.ones((3, 2), np.float32),
    }


def test_the_loss_is_equation_10_if_every_segment_has_labels(batch):
    model = Constant(jnp.full((3, 2), 0.3), jnp.full((3, 2, 22), 0.2))
    value, sums = pretrain.loss(model, batch, None)
    errors = []
    for v, t in np.ndindex(3, 2):
        error = (0.3 - batch['rhythm'][v, t]) ** 2
        for instrument in range(22):
            error += (0.2 - batch['sources'][v, t, instrument]) ** 2
        errors.append(error)
    np.testing.assert_allclose(value, sum(errors) / len(errors), rtol=1e-5)
    assert sums['rhythm_error'][1] == sums['sources_error'][1] == 6


def test_segments_without_a_label_do_not_count(batch):
    model = Constant(jnp.zeros((3, 2)), jnp.zeros((3, 2, 22)))
    batch['rhythm_weights'][:, 1] = 0
    batch['source_weights'][2] = 0
    value, _ = pretrain.loss(model, batch, None)
    rhythm = np.square(batch['rhythm'][:, 0]).mean()
    sources = np.square(batch['sources'][:2]).sum(-1).mean()
    np.testing.assert_allclose(value, rhythm + sources, rtol=1e-6)


def test_a_mixture_adds_powers_and_sources_and_has_no_rhythm(batch):
    model = Constant(jnp.zeros((3, 2)), jnp.zeros((3, 2, 22)))
    _, sums = pretrain.loss(model, batch, nnx.Rngs(0), mix=1.0)
    heard = batch['log_mel'].astype(np.float32)
    power = 10 ** (heard / 10)
    expected = 10 * np.log10(power + power[[2, 0, 1]])
    np.testing.assert_allclose(model.log_mel, expected, atol=1e-3)
    assert sums['rhythm_error'].tolist() == [0, 0]
    both = batch['sources'] + batch['sources'][[2, 0, 1]]
    np.testing.assert_allclose(sums['sources_error'][0], np.square(both).sum(), rtol=1e-5)
    _, sums = pretrain.loss(model, batch, nnx.Rngs(0), mix=0.0)
    np.testing.assert_array_equal(model.log_mel, heard)


def test_swapped_videos_get_the_frames_of_another_video_and_keep_sound_and_labels(batch):
    model = Constant(jnp.zeros((3, 2)), jnp.zeros((3, 2, 22)))
    batch['frames'] = np.random.default_rng(1).integers(0, 255, (3, 2, 4, 4, 3)).astype(np.uint8)
    untouched = pretrain.loss(model, batch, None)[0]
    swapped = pretrain.loss(model, batch, nnx.Rngs(0), swap=1.0)[0]
    np.testing.assert_array_equal(model.frames, batch['frames'][[2, 0, 1]])
    np.testing.assert_array_equal(model.log_mel, batch['log_mel'].astype(np.float32))
    assert swapped == untouched


def test_the_stage_stores_features_of_every_video(tiny, pretrained):
    config, inputs, summary = pretrained
    features = stored.read(inputs['pretrain'] / 'features', pretrain.FEATURES)
    reader = records.RecordReader(inputs['prepare'] / 'records')
    assert {len(array) for array in features.values()} == {len(reader)}
    assert features['source_audio'].shape == (14, 3, 64)
    assert features['sources'].dtype == np.float16
    assert features['segment_mask'].all()
    for split in ('train', 'val'):
        assert all(np.isfinite(value) for value in summary[split].values())
    structure, arrays = pretrain.load(config, inputs['pretrain'])
    frames, log_mel = (
        np.stack([reader[i][name] for i in (12, 13)]) for name in ('frames', 'log_mel')
    )
    output = jax.jit(lambda a, f, m: structure.merge(a)(f, m))(arrays, frames, log_mel)
    for name in ('rhythm_visual', 'source_audio', 'rhythm', 'sources'):
        np.testing.assert_allclose(getattr(output, name), features[name][12:], atol=2e-3, rtol=2e-3)


def test_the_audio_towers_have_the_statistics_of_the_train_data(tiny, pretrained):
    config, inputs, _ = pretrained
    _, arrays = pretrain.load(config, inputs['pretrain'])
    reader = records.RecordReader(inputs['prepare'] / 'records')
    heard = np.concatenate([reader[i]['log_mel'] for i in range(9)]).astype(np.float64)
    kept = arrays['pairs.audio.mel_norm.mean'], arrays['pairs.audio.mel_norm.variance']
    for found, expected in zip(kept, (heard.mean((0, 1)), heard.var((0, 1)))):
        np.testing.assert_allclose(found, np.broadcast_to(expected, (2, 16)), rtol=1e-4)


def test_the_epoch_with_the_lowest_validation_loss_is_kept(pretrained, tmp_path):
    config, inputs, summary = pretrained
    folder = inputs['pretrain']
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    losses = {row['epoch']: row['val_loss'] for row in rows if 'val_loss' in row}
    assert summary['best']['score'] == min(losses.values())
    assert summary['best']['epoch'] == min(losses, key=losses.get)
    structure, arrays = pretrain.load(config, folder)
    labels = stored.read(inputs['annotate'], pretrain.LABELS)
    reader = records.RecordReader(inputs['prepare'] / 'records')
    whole = pipeline.whole_videos(reader, labels, range(9, 12), 4)  # three val videos, and padding
    sums, _ = jax.jit(lambda a, b: pretrain.validate(structure.merge(a), b))(arrays, whole[0])
    assert sums['loss'][1] == 9  # segments that exist
    np.testing.assert_allclose(sums['loss'][0] / 9, summary['best']['score'], rtol=1e-5)


def test_a_folder_of_an_older_version_has_no_best_parameters(pretrained, tmp_path):
    config, inputs, _ = pretrained
    for name in ('checkpoints', 'frozen'):
        shutil.copytree(inputs['pretrain'] / name, tmp_path / name)
    (tmp_path / 'best').mkdir()  # the folder of a Best that has saved nothing
    structure, arrays = pretrain.load(config, tmp_path)
    assert set(structure.names) == set(arrays)


def test_the_rate_warms_up(pretrained):
    config, inputs, _ = pretrained
    text = (inputs['pretrain'] / 'metrics.jsonl').read_text()
    rates = [json.loads(line).get('learning_rate') for line in text.splitlines()]
    # Half of all six steps: the rate of the second step is two quarters.
    assert [r for r in rates if r] == pytest.approx([0.5e-3, 0.75e-3, 1e-3, 1e-3])
    reader = records.RecordReader(inputs['prepare'] / 'records')
    labels = stored.read(inputs['annotate'], pretrain.LABELS)
    config = config.copy_and_resolve_references()
    config.pretrain.warmup_epochs = 1.0
    splits = {'train': range(9), 'val': range(9, 12)}
    phase = pretrain._phase(config, reader, labels, splits, sharding.single_device_mesh())
    found = [float(phase.learning_rate(step)) for step in range(5)]
    np.testing.assert_allclose(found, np.array([1 / 4, 2 / 4, 3 / 4, 1, 1]) * 1e-3, rtol=1e-6)


def test_a_complete_stage_is_not_repeated(pretrained):
    config, inputs, summary = pretrained
    before = (inputs['pretrain'] / 'metrics.jsonl').read_text()
    assert pretrain.run(config, inputs['pretrain'], inputs) == summary
    assert (inputs['pretrain'] / 'metrics.jsonl').read_text() == before
    rows = [json.loads(line) for line in before.splitlines()]
    assert [row['step'] for row in rows if 'loss' in row] == [2, 3, 4, 6]
    assert [row['step'] for row in rows if 'val_loss' in row] == [3, 6]


def test_labels_must_match_the_records(tiny, tmp_path):
    config, inputs = tiny
    (tmp_path / 'rhythm.npy').write_bytes((inputs['annotate'] / 'rhythm.npy').read_bytes())
    np.save(tmp_path / 'sources.npy', np.zeros((3, 3, 22), np.float32))
    with pytest.raises(StageError, match='3 rows for 14 records'):
        pretrain.run(config, tmp_path / 'pretrain', inputs | {'annotate': tmp_path})


def test_a_config_with_another_size_cannot_load_the_checkpoint(pretrained):
    config, inputs, _ = pretrained
    other = config.copy_and_resolve_references()
    other.pretrain.predictor_width = 8
    with pytest.raises(StageError, match='cannot be read into the configured model'):
        pretrain.load(other, inputs['pretrain'])


def initial(config):
    """Return the encoder's arrays before training, without statistics."""
    model = building.build(lambda rngs: pretrain.build(config, rngs), config.seed)
    return state.split(model, 'all')[1]


def changed(config, folder):
    """Return the names of the parameters that differ from the initial ones."""
    _, arrays = pretrain.load(config, folder)
    return {
        name
        for name, array in initial(config).items()
        if np.abs(np.asarray(arrays[name]) - np.asarray(array)).max() > 0
    }


def variant(config, **settings):
    config = config.copy_and_resolve_references()
    config.pretrain.update(settings)
    return config


@pytest.fixture(scope='module')
def predictors_alone(tiny, tmp_path_factory):
    """(config, folders up to pretrain, the summary) of a run with predictor epochs alone."""
    config, inputs = tiny
    config = variant(config, epochs=0)
    folder = tmp_path_factory.mktemp('predictors')
    return config, inputs | {'pretrain': folder}, pretrain.run(config, folder, inputs)


def test_without_epochs_the_predictors_alone_learn_and_the_best_ones_are_kept(predictors_alone):
    config, inputs, summary = predictors_alone
    folder = inputs['pretrain']
    assert not (folder / 'checkpoints').exists()
    learned = changed(config, folder)
    assert all(name.startswith(predictors.PREDICTORS) for name in learned)
    assert {name.partition('.')[0] for name in learned} == {'rhythm_predictor', 'source_predictor'}
    lines = (folder / 'predictors' / 'metrics.jsonl').read_text().splitlines()
    losses = [row['val_loss'] for row in map(json.loads, lines) if 'val_loss' in row]
    assert len(losses) == config.pretrain.predictor_epochs
    assert summary['best']['score'] == min(losses)
    assert summary['steps'] == 3 * config.pretrain.predictor_epochs
    sizes = {name: array.size for name, array in initial(config).items()}
    assert summary['parameters'] == sum(sizes.values())
    assert summary['trained_parameters'] == sum(
        size for name, size in sizes.items() if name.startswith(predictors.PREDICTORS)
    )


def test_without_epochs_the_stored_predictions_are_those_of_the_best_predictors(predictors_alone):
    config, inputs, summary = predictors_alone
    features = stored.read(inputs['pretrain'] / 'features', pretrain.FEATURES)
    structure, arrays = pretrain.load(config, inputs['pretrain'])
    streams = [features[name].astype(np.float32) for name in predictors.STREAMS]
    found = jax.jit(lambda arrays, *x: structure.merge(arrays).predict(*x))(arrays, *streams)
    for name, value in zip(pretrain.LABELS, found):
        np.testing.assert_allclose(features[name], value, atol=1e-2)
    errors = summary['val']['rhythm_mse'] + summary['val']['sources_mse']
    assert errors == pytest.approx(summary['best']['score'], rel=1e-2)


def test_without_epochs_a_run_again_changes_nothing(predictors_alone):
    config, inputs, summary = predictors_alone
    before = (inputs['pretrain'] / 'predictors' / 'metrics.jsonl').read_text()
    assert pretrain.run(config, inputs['pretrain'], inputs) == summary
    assert (inputs['pretrain'] / 'predictors' / 'metrics.jsonl').read_text() == before


@pytest.mark.slow
def test_amuse_trains_on_what_predictor_epochs_alone_leave(predictors_alone, tmp_path):
    config, inputs, _ = predictors_alone
    config = config.copy_and_resolve_references()
    config.train.update(head_epochs=1, epochs=1)
    summary = train.run(config, tmp_path, inputs)
    assert 0 <= summary['best']['score'] <= 1
    _, encoder = pretrain.load(config, inputs['pretrain'])
    frozen = predict.load_best(config, inputs | {'train': tmp_path}).encoder.visual
    name = next(name for name in encoder if name.startswith('pairs.visual.'))
    tower = state.flatten(frozen)[1][name.removeprefix('pairs.visual.')]
    np.testing.assert_array_equal(tower, encoder[name][1])  # index 1: the source encoder


@pytest.mark.slow
def test_trainable_chooses_what_the_epochs_change(tiny, tmp_path):
    config, inputs = tiny
    config = variant(config, trainable='predictor', predictor_epochs=0)
    summary = pretrain.run(config, tmp_path, inputs)
    learned = changed(config, tmp_path)
    assert learned and all(name.startswith(predictors.PREDICTORS) for name in learned)
    assert summary['trained_parameters'] < summary['parameters']
    assert {name.partition('.')[0] for name in pretrain.load(config, tmp_path)[1]} > {'pairs'}


def test_predictors_that_would_stay_random_are_refused(tiny, tmp_path):
    config, inputs = tiny
    with pytest.raises(StageError, match="pretrain.trainable is 'pairs', so the predictors would"):
        pretrain.run(variant(config, trainable='pairs'), tmp_path, inputs)
    with pytest.raises(StageError, match="pretrain.trainable 'towers' selects no parameter"):
        pretrain.run(variant(config, trainable='towers'), tmp_path, inputs)
