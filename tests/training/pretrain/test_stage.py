import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from amuse_jax.data import pipeline, records
from amuse_jax.errors import StageError
from amuse_jax.models import universal_encoder
from amuse_jax.training import sharding, stored
from amuse_jax.training.pretrain import stage as pretrain


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


def test_scores_of_perfect_and_of_reversed_predictions():
    random = np.random.default_rng(1)
    sources = random.integers(0, 2, (4, 5, 22)).astype(np.float32)
    labels = {'rhythm': np.ones((4, 5), np.float32), 'sources': sources}
    features = labels | {'segment_mask': np.ones((4, 5), bool)}
    good = pretrain.scores(features, labels, [0, 2, 3])
    assert good == {'rhythm_mse': 0, 'sources_mse': 0, 'sources_average_precision': 1}
    bad = pretrain.scores(features | {'sources': 1 - sources}, labels, [0, 2, 3])
    assert bad['sources_mse'] == 22 and bad['sources_average_precision'] < 0.8


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
    # Half of an epoch of three steps: the rate of the second step is two thirds.
    assert [r for r in rates if r] == pytest.approx([2e-3 / 3, 1e-3, 1e-3, 1e-3])
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
