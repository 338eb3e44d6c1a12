"""Training of the predictors (Eq. 9) alone, on the features of towers that do not change.

4.1 pretrains "specifically the rhythm and music source predictors", and pretrain.epochs=0 leaves it
at that. Or the towers learn afterwards: untrained predictors would first distort the features of
the pretrained towers (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"). In this
phase the features are constant and stored, so a step costs almost nothing.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from amuse_jax.data import pipeline
from amuse_jax.models.universal_encoder import with_next
from amuse_jax.training import jobs, loop, sharding, state

STREAMS = ('rhythm_visual', 'rhythm_audio', 'source_visual', 'source_audio')
LABELS = ('rhythm', 'sources')
METRICS = ('loss', 'rhythm_error', 'sources_error')
PREDICTORS = ('rhythm_predictor.', 'source_predictor.')


def fit(
    config: ConfigDict,
    folder: Path,
    structure: state.Structure,
    params: state.Arrays,
    frozen: state.Arrays,
    arrays: Mapping[str, np.ndarray],
    splits: Mapping[str, Sequence[int]],
    video_ids: Sequence[str],
) -> state.Arrays:
    """Train the predictors on the stored features of the towers.

    If no epochs follow, they are validated after every epoch, and the best ones are kept in best/.

    Args:
      config: the config of the run.
      folder: gets checkpoints and metrics.
      structure, params, frozen: the universal encoder's structure, trainable and frozen arrays.
      arrays: STREAMS, labels and segment_mask of every record.
      splits: the records to train on, 'train', and to validate on, 'val'.
      video_ids: the video ids of all records, for messages.

    Returns:
      `params` with trained predictors, those of the last epoch.
    """
    settings, mesh = config.pretrain, sharding.mesh(config.mesh)

    def batches_of(split: str, epochs: int):
        rows = sharding.local_rows(settings.batch_size, mesh)
        return pipeline.stored_videos(
            arrays, splits[split], settings.batch_size, epochs, config.seed, rows
        )

    batches = batches_of('train', settings.predictor_epochs)
    validation = None if settings.epochs else jobs.Validation(batches_of('val', 1), validate)
    phase = jobs.Phase(
        epochs=settings.predictor_epochs,
        batches=batches,
        loss=functools.partial(loss, swap=settings.swap),
        learning_rate=state.warmup_cosine_schedule(
            settings.predictor_learning_rate, len(batches), len(batches) // 10, 0.01
        ),
        samples='sources_error',
        validation=validation,
        compares_videos=True,
        clip_norm=settings.clip_norm,
    )
    trainable = {name: array for name, array in params.items() if name.startswith(PREDICTORS)}
    towers = {name: array for name, array in params.items() if name not in trainable}
    job = jobs.Job(
        name='predictors',
        folder=folder,
        structure=structure,
        frozen=frozen | towers,
        metrics=METRICS,
        phases=[phase],
        settings=config.loop,
        mesh=mesh,
        seed=config.seed,
        video_ids=video_ids,
        best_by='loss' if validation else '',
        best_is_lowest=True,
    )
    return params | loop.fit(job, trainable)


def input_statistics(features: Mapping[str, np.ndarray], records: Sequence[int]) -> state.Arrays:
    """Return the mean and variance of both predictors' input over `records`, by parameter name."""
    mask = features['segment_mask'][records]
    streams = {name: features[name][records].astype(np.float32) for name in STREAMS}
    rhythm = (with_next(streams['rhythm_visual']), with_next(streams['rhythm_audio']))
    source = (streams['source_visual'], streams['source_audio'])
    statistics = {}
    for name, parts in zip(PREDICTORS, (rhythm, source)):
        rows = np.concatenate(parts, axis=-1)[mask].astype(np.float64)
        statistics[f'{name}norm.mean'] = jnp.asarray(rows.mean(0), jnp.float32)
        statistics[f'{name}norm.variance'] = jnp.asarray(rows.var(0), jnp.float32)
    return statistics


def loss(model, batch, rngs, swap: float = 0.0):
    """Compute the loss of Eq. 10 on stored features; see `prediction_loss` and step.Loss.

    Args:
      model: UniversalEncoder.
      batch: a batch of pipeline.stored_videos.
      rngs: draws the videos whose visual features are swapped; None: none are.
      swap: share of videos that get the visual features of another video. The answer is in the
        sound, but with few videos a predictor could learn to recognise each one by its pictures.
    """
    streams = {name: batch[name].astype(jnp.float32) for name in STREAMS}
    if rngs is not None and swap > 0:
        is_swapped = jax.random.bernoulli(rngs.swap(), swap, (len(batch['record']), 1, 1))
        for name in ('rhythm_visual', 'source_visual'):
            streams[name] = swap_with_previous(streams[name], is_swapped)
    return prediction_loss(*model.predict(*(streams[name] for name in STREAMS)), batch)


def validate(model, batch) -> tuple[state.Arrays, None]:
    """Compute the loss of Eq. 10 on stored features of whole videos; see step.Evaluation."""
    return count_segments(*loss(model, batch, None), batch), None


def count_segments(
    value: jax.Array, sums: state.Arrays, batch: Mapping[str, jax.Array]
) -> state.Arrays:
    """Return the sums of a loss with the batch counted by its segments, not as one.

    So padding does not count in a validation.
    """
    segments = batch['source_weights'].sum()
    return sums | {'loss': jnp.stack([value * segments, segments])}


def swap_with_previous(x: jax.Array, is_swapped: jax.Array) -> jax.Array:
    """Return `x` [V, ...] with each row that `is_swapped` replaced by the row before it."""
    return jnp.where(is_swapped, jnp.roll(x, 1, axis=0), x)


def prediction_loss(
    rhythm: jax.Array, sources: jax.Array, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, state.Arrays]:
    """Compute Eq. 10: for each task the mean error over the segments that have its label.

    Args:
      rhythm: [V, t] predictions.
      sources: [V, t, I] predictions.
      batch: the labels `rhythm` and `sources`, and [V, t] `rhythm_weights` and `source_weights`.

    Returns:
      The loss and the sums of step.Loss.
    """
    rhythm = _weighted_sum(jnp.square(rhythm - batch['rhythm']), batch['rhythm_weights'])
    source = _weighted_sum(jnp.square(sources - batch['sources']).sum(-1), batch['source_weights'])
    value = sum(total / jnp.maximum(weight, 1) for total, weight in (rhythm, source))
    sums = {'loss': jnp.stack([value, 1.0]), 'rhythm_error': rhythm, 'sources_error': source}
    return value, sums


def scores(
    features: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], records: Sequence[int]
) -> dict:
    """Compute the errors of the stored predictions on `records`.

    Returns:
      rhythm_mse: mean squared error of the rhythm.
      sources_mse: mean squared error of the sources, summed over instruments as in Eq. 10.
      sources_average_precision: mean average precision over the instruments that sound in some
        segments but not in all; None if there is no such instrument.
    """
    from sklearn.metrics import average_precision_score  # a second that readers of a model save

    mask = features['segment_mask'][records]
    predicted = {name: features[name][records][mask].astype(np.float32) for name in LABELS}
    truth = {name: labels[name][records][mask] for name in LABELS}
    sounds = truth['sources'] > 0
    defined = [i for i in range(sounds.shape[1]) if 0 < sounds[:, i].sum() < len(sounds)]
    precisions = [
        average_precision_score(sounds[:, i], predicted['sources'][:, i]) for i in defined
    ]
    squares = {name: np.square(predicted[name] - truth[name]) for name in LABELS}
    return {
        'rhythm_mse': float(squares['rhythm'].mean()),
        'sources_mse': float(squares['sources'].sum(-1).mean()),
        'sources_average_precision': float(np.mean(precisions)) if precisions else None,
    }


def _weighted_sum(errors: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.stack([(errors * weights).sum(), weights.sum()])
