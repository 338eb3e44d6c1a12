"""The train stage: Amuse learns to answer (4.1).

Two phases. In the head epochs the adapters stay closed, as they are in a freshly built model: the
towers then know nothing of the question and run once per video, before training. In the epochs
that follow the adapters are open. Where the towers are frozen, everything of them that does not
depend on the question is computed once and stored, in both phases.

Leaves checkpoints/, best/, frozen/, encoded/, metrics.jsonl, tensorboard/, and in seen.npy which
questions the model knows.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from amuse_jax.data import augment, pipeline
from amuse_jax.errors import StageError
from amuse_jax.models import building
from amuse_jax.training import checkpoints, loop, sharding, state, stored
from amuse_jax.training.train import answering, leakage
from amuse_jax.training.train.answering import CLOSED, FRONT, TOWERS
from amuse_jax.training.watchdog import Watchdog


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Trains Amuse and keeps the parameters with the best validation accuracy.

    Returns:
      Steps, numbers of trainable and frozen parameters, and the best validation's record.

    Raises:
      StageError: no epochs, no train or val question, inputs that do not fit each other, or a mesh
        that cannot share out the model or the batches.
    """
    if not config.train.head_epochs + config.train.epochs:
        raise StageError(
            'config.train.head_epochs and config.train.epochs are both 0; set one of them'
        )
    sharding.check_parts(config.train.batch_size, config.train.parts, sharding.mesh(config.mesh))
    model = building.build(lambda rngs: answering.build(config, inputs['rois'], rngs), config.seed)
    structure, params, frozen = state.split(model, config.train.trainable)
    started = answering.start_towers(config, inputs['pretrain'], params | frozen)
    encoded = folder / 'encoded' if towers_are_frozen(params) else None
    source = answering.Source(config, inputs, model.streams, encoded)
    leakage.write(folder, [q for q in source.table().questions if q.split in ('train', 'val')])
    started = sharding.put(started, sharding.of_parameters(started, source.mesh))
    params, frozen = ({name: started[name] for name in part} for part in (params, frozen))
    frozen = checkpoints.keep_frozen(folder / 'frozen', frozen)
    if encoded and model.encoder is not None:
        encode(config, encoded, source, structure, params | frozen)
    job = loop.Job(
        name='train',
        folder=folder,
        structure=structure,
        frozen=frozen,
        metrics=answering.METRICS,
        phases=_phases(config, source),
        settings=config.loop,
        mesh=source.mesh,
        seed=config.seed,
        video_ids=[video['video_id'] for video in source.reader().videos],
        best_by='accuracy',
    )
    trained = loop.fit(job, params)
    _, record = checkpoints.read_best(folder / 'best', trained)
    return {
        'steps': sum(len(phase.batches) for phase in job.phases),
        'trainable_parameters': sum(array.size for array in params.values()),
        'frozen_parameters': sum(array.size for array in frozen.values()),
        'best': record,
    }


def towers_are_frozen(params: state.Arrays) -> bool:
    """Whether no trainable parameter belongs to the visual or the audio tower."""
    return not any(name.startswith(TOWERS) for name in params)


def encode(
    config: ConfigDict,
    folder: Path,
    source: answering.Source,
    structure: state.Structure,
    arrays: state.Arrays,
) -> None:
    """Fills `folder` with what the frozen towers give for every record, before any question.

    front_visual, front_audio (N, T, n, d): the tokens that enter the first adapters;
    closed_visual, closed_audio (N, T, d): the pooled streams of the head epochs.
    """
    dtype = jnp.dtype(config.train.encoded_dtype)
    wanted = (FRONT if config.train.epochs else ()) + (CLOSED if config.train.head_epochs else ())

    @jax.jit
    @sharding.shared_out(source.mesh)
    def run_towers(arrays, frames, log_mel):
        encoder = structure.merge(sharding.gathered(arrays, source.mesh)).encoder
        front = encoder.front(frames, log_mel)
        found = dict(zip(FRONT, (front.visual, front.audio)))
        if config.train.head_epochs:
            found |= dict(zip(CLOSED, encoder.closed(front)))
        return {name: found[name].astype(dtype) for name in wanted}

    def compute(batch):
        placed = sharding.place(batch, source.mesh)
        return sharding.fetch(run_towers(arrays, placed['frames'], placed['log_mel']))

    reader = source.reader()
    videos = config.train.batch_size
    batches = functools.partial(
        pipeline.whole_videos,
        reader,
        {},
        videos=videos,
        rows=sharding.rows(videos, source.mesh),
    )
    watchdog = Watchdog(
        folder, config.loop.stuck_seconds, [video['video_id'] for video in reader.videos]
    )
    stored.fill(folder, wanted, len(reader), batches, compute, 'encode', watchdog)


def _phases(config: ConfigDict, source: answering.Source) -> list[loop.Phase]:
    settings, table = config.train, source.table()
    phases = []
    for is_open, epochs in ((False, settings.head_epochs), (True, settings.epochs)):
        if not epochs:
            continue
        few = settings.open_questions if is_open else 0
        train = source.batches(table, 'train', settings.batch_size, is_open=is_open, questions=few)
        val = source.batches(table, 'val', settings.batch_size, is_open=is_open)
        changes = _augmentation(settings, train)
        batches = train.epochs(epochs, config.seed + 1000 * len(phases), int(few > 0), changes)
        phases.append(
            loop.Phase(
                epochs=epochs,
                batches=batches,
                loss=functools.partial(answering.loss, is_open=is_open),
                learning_rate=_schedule(settings, is_open, len(batches) // epochs),
                samples='loss',
                parts=settings.parts if is_open else 1,
                validation=loop.Validation(
                    val.once(), functools.partial(answering.answer, is_open=is_open)
                ),
            )
        )
    return phases


def _augmentation(settings: ConfigDict, batches: pipeline.QuestionBatches) -> augment.Augmentation:
    """What of the settings such batches allow; the log says where that is less."""
    wanted = augment.Augmentation(settings.mirror, settings.gain_db, settings.time_shift)
    allowed = dataclasses.replace(
        wanted,
        # Stored tokens that enter the adapters know where in the picture they are, ...
        mirror=0.0 if FRONT[0] in batches.arrays else wanted.mirror,
        # ... and all stored tokens are of the sound as it was.
        gain_db=0.0 if batches.reader is None else wanted.gain_db,
    )
    if allowed != wanted:
        logging.info('train: %s becomes %s: the towers have run already', wanted, allowed)
    return allowed


def _schedule(settings: ConfigDict, is_open: bool, steps_per_epoch: int):
    if is_open:
        return state.halving(settings.learning_rate, steps_per_epoch, settings.halve_every)
    return state.warm_cosine(
        settings.head_learning_rate,
        settings.head_epochs * steps_per_epoch,
        settings.head_warmup_epochs * steps_per_epoch,
        settings.head_final_share,
    )
