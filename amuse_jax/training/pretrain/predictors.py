"""The predictors of the universal encoder (Eq. 9) learn alone before the towers learn with them.

Predictors that know nothing yet would first spoil what the towers bring along (Kumar et al. 2022,
"Fine-Tuning can Distort Pretrained Features"). While they learn, the towers' features are constant
and stored, so that a step costs next to nothing.
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
from amuse_jax.training import loop, sharding, state

STREAMS = ('rhythm_visual', 'rhythm_audio', 'source_visual', 'source_audio')
METRICS = ('loss', 'rhythm_error', 'sources_error')
PREDICTORS = ('rhythm_predictor.', 'source_predictor.')


def fit(
    config: ConfigDict,
    folder: Path,
    structure: state.Structure,
    params: state.Arrays,
    frozen: state.Arrays,
    arrays: Mapping[str, np.ndarray],
    records: Sequence[int],
    video_ids: Sequence[str],
) -> state.Arrays:
    """Trains the predictors on the towers' features.

    Args:
      config: the run's.
      folder: gets checkpoints and metrics.
      structure, params, frozen: of the universal encoder.
      arrays: STREAMS, labels and segment_mask of every record.
      records: which of them to learn from.
      video_ids: of all records, for messages.

    Returns:
      `params` with the predictors trained.
    """
    settings, mesh = config.pretrain, sharding.mesh(config.mesh)
    batches = pipeline.stored_videos(
        arrays,
        records,
        settings.batch_size,
        settings.predictor_epochs,
        config.seed,
        sharding.rows(settings.batch_size, mesh),
    )
    phase = loop.Phase(
        epochs=settings.predictor_epochs,
        batches=batches,
        loss=functools.partial(loss, swap=settings.swap),
        learning_rate=state.warm_cosine(
            settings.predictor_learning_rate, len(batches), len(batches) // 10, 0.01
        ),
        samples='sources_error',
    )
    mine = {name: array for name, array in params.items() if name.startswith(PREDICTORS)}
    towers = {name: array for name, array in params.items() if name not in mine}
    job = loop.Job(
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
    )
    return params | loop.fit(job, mine)


def statistics(features: Mapping[str, np.ndarray], records: Sequence[int]) -> state.Arrays:
    """Mean and variance of both predictors' input over some records, by parameter name."""
    mask = features['segment_mask'][records]
    streams = {name: features[name][records].astype(np.float32) for name in STREAMS}
    rhythm = (with_next(streams['rhythm_visual']), with_next(streams['rhythm_audio']))
    source = (streams['source_visual'], streams['source_audio'])
    found = {}
    for name, parts in zip(PREDICTORS, (rhythm, source)):
        rows = np.concatenate(parts, axis=-1)[mask].astype(np.float64)
        found[f'{name}norm.mean'] = jnp.asarray(rows.mean(0), jnp.float32)
        found[f'{name}norm.variance'] = jnp.asarray(rows.var(0), jnp.float32)
    return found


def loss(model, batch, rngs, swap: float = 0.0):
    """Eq. 10 on stored features; see `errors` and step.Loss.

    Args:
      model: UniversalEncoder.
      batch: of pipeline.stored_videos.
      rngs: draws whose pictures are swapped; None: nobody's are.
      swap: share of videos that get another video's pictures: the answer is in the sound. Few
        videos are otherwise told apart by their pictures.
    """
    streams = {name: batch[name].astype(jnp.float32) for name in STREAMS}
    if rngs is not None and swap > 0:
        is_swapped = jax.random.bernoulli(rngs.swap(), swap, (len(batch['record']), 1, 1))
        for name in ('rhythm_visual', 'source_visual'):
            streams[name] = with_swapped(streams[name], is_swapped)
    return errors(*model.predict(*(streams[name] for name in STREAMS)), batch)


def with_swapped(x: jax.Array, is_swapped: jax.Array) -> jax.Array:
    """`x` [V, ...] with the row before in place of each that `is_swapped`."""
    return jnp.where(is_swapped, jnp.roll(x, 1, axis=0), x)


def errors(
    rhythm: jax.Array, sources: jax.Array, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, state.Arrays]:
    """Eq. 10, each task's mean over the segments that have its label.

    Args:
      rhythm: [V, t] predictions; sources: [V, t, I].
      batch: with the labels `rhythm` and `sources`, and [V, t] `rhythm_weights` and
        `source_weights`.

    Returns:
      The loss and the sums of step.Loss.
    """
    rhythm = _weighted(jnp.square(rhythm - batch['rhythm']), batch['rhythm_weights'])
    source = _weighted(jnp.square(sources - batch['sources']).sum(-1), batch['source_weights'])
    value = sum(total / jnp.maximum(weight, 1) for total, weight in (rhythm, source))
    sums = {'loss': jnp.stack([value, 1.0]), 'rhythm_error': rhythm, 'sources_error': source}
    return value, sums


def _weighted(errors: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.stack([(errors * weights).sum(), weights.sum()])
