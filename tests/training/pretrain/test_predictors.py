import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.models import building
from amuse_jax.models.universal_encoder import with_next
from amuse_jax.training import checkpoints, state, stored
from amuse_jax.training.pretrain import predictors
from amuse_jax.training.pretrain import stage as pretrain


class Sums:
    """A model that predicts sums of its streams, which show the streams that it was given."""

    def predict(self, rhythm_visual, rhythm_audio, source_visual, source_audio):
        rhythm = rhythm_visual.sum(-1) + 10 * rhythm_audio.sum(-1)
        sources = source_visual.sum(-1) + 10 * source_audio.sum(-1)
        return rhythm, jnp.repeat(sources[..., None], 22, axis=-1)


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    streams = {n: random.normal(size=(3, 2, 5)).astype(np.float16) for n in predictors.STREAMS}
    weights = np.array([[1, 1], [1, 0], [1, 1]], np.float32)
    return streams | {
        'rhythm': random.uniform(size=(3, 2)).astype(np.float32),
        'sources': random.uniform(size=(3, 2, 22)).astype(np.float32),
        'rhythm_weights': weights,
        'source_weights': weights,
        'record': np.arange(3),
    }


def expected_loss(batch, pictures):
    """Compute Eq. 10 in NumPy; video v has the visual streams of the video `pictures[v]`."""
    total = 0
    for v, t in zip(*np.nonzero(batch['source_weights'])):
        x = {name: batch[name].astype(np.float32) for name in predictors.STREAMS}
        rhythm = x['rhythm_visual'][pictures[v], t].sum() + 10 * x['rhythm_audio'][v, t].sum()
        source = x['source_visual'][pictures[v], t].sum() + 10 * x['source_audio'][v, t].sum()
        total += (rhythm - batch['rhythm'][v, t]) ** 2
        total += np.square(source - batch['sources'][v, t]).sum()
    return total / batch['source_weights'].sum()


def test_the_loss_is_equation_10_on_the_stored_streams(batch):
    value, sums = predictors.loss(Sums(), batch, None, swap=1.0)
    np.testing.assert_allclose(value, expected_loss(batch, [0, 1, 2]), rtol=1e-5)
    assert sums['rhythm_error'][1] == sums['sources_error'][1] == 5


def test_swapped_videos_have_the_visual_streams_of_another_video(batch):
    value, _ = predictors.loss(Sums(), batch, nnx.Rngs(0), swap=1.0)
    np.testing.assert_allclose(value, expected_loss(batch, [2, 0, 1]), rtol=1e-5)


def test_the_statistics_cover_the_existing_segments_of_the_records():
    random = np.random.default_rng(0)
    features = {name: random.normal(3, 2, size=(6, 4, 5)) for name in predictors.STREAMS}
    features['segment_mask'] = random.uniform(size=(6, 4)) < 0.7
    records = [0, 3, 4]
    found = predictors.input_statistics(features, records)
    parts = [with_next(features[name]) for name in ('rhythm_visual', 'rhythm_audio')]
    rows = [
        np.concatenate([part[r, t] for part in parts])
        for r in records
        for t in np.flatnonzero(features['segment_mask'][r])
    ]
    np.testing.assert_allclose(
        found['rhythm_predictor.norm.mean'], np.mean(rows, axis=0), atol=1e-5
    )
    np.testing.assert_allclose(
        found['rhythm_predictor.norm.variance'], np.var(rows, axis=0), atol=1e-5
    )
    assert found['source_predictor.norm.mean'].shape == (10,)


def test_scores_of_perfect_and_of_reversed_predictions():
    random = np.random.default_rng(1)
    sources = random.integers(0, 2, (4, 5, 22)).astype(np.float32)
    labels = {'rhythm': np.ones((4, 5), np.float32), 'sources': sources}
    features = labels | {'segment_mask': np.ones((4, 5), bool)}
    good = predictors.scores(features, labels, [0, 2, 3])
    assert good == {'rhythm_mse': 0, 'sources_mse': 0, 'sources_average_precision': 1}
    bad = predictors.scores(features | {'sources': 1 - sources}, labels, [0, 2, 3])
    assert bad['sources_mse'] == 22 and bad['sources_average_precision'] < 0.8


def test_only_the_predictors_train(pretrained):
    config, inputs, _ = pretrained
    folder = inputs['pretrain'] / 'predictors'
    rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert rows[-1]['epoch'] == config.pretrain.predictor_epochs
    assert rows[-1]['loss'] < rows[0]['loss']
    model = building.build(lambda rngs: pretrain.build(config, rngs), config.seed)
    _, fresh, _ = state.split(model, '_predictor')
    learned = checkpoints.read_params(folder / 'checkpoints', fresh)  # and no other parameter
    for name in ('rhythm_predictor.first.kernel', 'source_predictor.third.bias'):
        assert np.abs(np.asarray(learned[name]) - np.asarray(fresh[name])).max() > 1e-4
    started = stored.read(inputs['pretrain'] / 'first_features', pretrain.FEATURES)
    _, arrays = pretrain.load(config, inputs['pretrain'])
    for name, statistic in predictors.input_statistics(started, range(9)).items():
        np.testing.assert_array_equal(arrays[name], statistic)
