"""The train stage: trains Amuse to answer questions (paper 4.1).

Training has two phases. In the head epochs the adapters are closed, as in a new model: the towers
then do not depend on the question, and run once per video before training. In the epochs after them
the adapters are open. If the towers are frozen, everything in them that does not depend on the
question is computed once and stored, for both phases.

The stage writes checkpoints/, best/, frozen/, encoded/, metrics.jsonl, tensorboard/ and seen.npy,
the hashes of the questions that the model was trained or validated on (leakage.py).
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
from amuse_jax.training import checkpoints, device_memory, jobs, loop, sharding, state, stored
from amuse_jax.training.train import answering, leakage
from amuse_jax.training.train.answering import CLOSED, QUESTION_FREE, TOWERS


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Train Amuse and save the parameters with the best validation accuracy.

    Args:
      config: the config of the run.
      folder: the folder of this stage.
      inputs: the folders of the stages prepare, rois and pretrain, by name.

    Returns:
      The number of steps, of trainable and of frozen parameters, and the record of the best
      validation.

    Raises:
      StageError: there are no epochs, no train or no val questions, the inputs do not match each
        other, or the mesh cannot divide the model or the batches evenly.
    """
    if not config.train.head_epochs + config.train.epochs:
        raise StageError(
            'config.train.head_epochs and config.train.epochs are both 0; set one of them'
        )
    parts = config.train.parts or 1
    sharding.check_parts(config.train.batch_size, parts, sharding.mesh(config.mesh))
    model = building.build(lambda rngs: answering.build(config, inputs['rois'], rngs), config.seed)
    structure, params, frozen = state.split(model, config.train.trainable)
    arrays = answering.init_towers(config, inputs['pretrain'], params | frozen)
    encoded = folder / 'encoded' if towers_are_frozen(params) else None
    source = answering.BatchSource(config, inputs, model.streams, encoded)
    known = [q for q in source.table().questions if q.split in ('train', 'val')]
    leakage.save_known_questions(folder, known)
    arrays = sharding.shard_params(arrays, sharding.parameter_shardings(arrays, source.mesh))
    params, frozen = ({name: arrays[name] for name in part} for part in (params, frozen))
    frozen = checkpoints.save_frozen_once(folder / 'frozen', frozen)
    if encoded and model.encoder is not None:
        encode(config, encoded, source, structure, params | frozen)
    job = jobs.Job(
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
        memory_advice=_memory_advice(config),
    )
    trained = loop.fit(job, params)
    _, record = checkpoints.read_best(folder / 'best', trained)
    return job.summary(params, record)


def towers_are_frozen(params: state.Arrays) -> bool:
    """Return whether no trainable parameter belongs to the visual or the audio tower."""
    return not any(name.startswith(TOWERS) for name in params)


def encode(
    config: ConfigDict,
    folder: Path,
    source: answering.BatchSource,
    structure: state.Structure,
    arrays: state.Arrays,
) -> None:
    """Compute the question-free outputs of the frozen towers for every record and store them.

    The arrays are front_visual and front_audio (N, T, n, d), the tokens that enter the first
    adapters, and closed_visual and closed_audio (N, T, d), the pooled streams of the head epochs.
    Their dtype is `model.dtype`.

    Args:
      config: the config of the run.
      folder: gets the arrays that the config's epochs need.
      source: gives the reader of the records and the mesh.
      structure: Amuse's structure.
      arrays: Amuse's arrays by name.
    """
    dtype = jnp.dtype(config.model.dtype)
    wanted = QUESTION_FREE if config.train.epochs else ()
    wanted += CLOSED if config.train.head_epochs else ()

    @jax.jit
    @sharding.sharded_batches(source.mesh)
    def run_towers(arrays, frames, log_mel):
        encoder = structure.merge(sharding.gather_params(arrays, source.mesh)).encoder
        question_free = encoder.question_free(frames, log_mel)
        outputs = dict(zip(QUESTION_FREE, (question_free.visual, question_free.audio)))
        if config.train.head_epochs:
            outputs |= dict(zip(CLOSED, encoder.closed(question_free)))
        return {name: outputs[name].astype(dtype) for name in wanted}

    def compute(batch):
        sharded = sharding.shard_batch(batch, source.mesh)
        return sharding.fetch(run_towers(arrays, sharded['frames'], sharded['log_mel']))

    with device_memory.full_as_error('encode', 'lower train.batch_size'):
        stored.compute_for_videos(
            config, folder, wanted, source.reader(), config.train.batch_size, compute, 'encode'
        )


def _memory_advice(config: ConfigDict) -> str:
    """Return how a step of training takes less memory."""
    return (
        'compute a batch in more parts (--config.train.parts=0 finds how many are needed; it is '
        f'{config.train.parts}), keep fewer values for the gradient '
        f'(--config.loop.remat_policy=inputs; it is {config.loop.remat_policy!r}), or lower '
        'train.batch_size or train.questions'
    )


def _phases(config: ConfigDict, source: answering.BatchSource) -> list[jobs.Phase]:
    settings, table = config.train, source.table()
    phases = []
    for is_open, epochs in ((False, settings.head_epochs), (True, settings.epochs)):
        if not epochs:
            continue
        count = settings.open_questions if is_open else 0
        tokens = source.tokens(table, ('train', 'val'), is_open=is_open)
        batches_of = functools.partial(
            source.batches, table, videos=settings.batch_size, is_open=is_open, tokens=tokens
        )
        train, val = batches_of('train', questions=count), batches_of('val')
        augmentation = _supported_augmentation(settings, train)
        seed = config.seed + 1000 * len(phases)
        batches = train.epochs(epochs, seed, int(count > 0), augmentation)
        phases.append(
            jobs.Phase(
                epochs=epochs,
                batches=batches,
                loss=functools.partial(answering.loss, is_open=is_open),
                learning_rate=_schedule(settings, is_open, len(batches) // epochs),
                samples='loss',
                parts=settings.parts if is_open else 1,
                clip_norm=settings.clip_norm,
                tokens=tokens,
                validation=jobs.Validation(
                    val.once(), functools.partial(answering.answer, is_open=is_open)
                ),
            )
        )
    return phases


def _supported_augmentation(
    settings: ConfigDict, batches: pipeline.QuestionBatches
) -> augment.Augmentation:
    """Return the augmentations that these batches support, and log the ones switched off."""
    wanted = augment.Augmentation(settings.mirror, settings.gain_db, settings.time_shift)
    names = {*batches.arrays, *(batches.tokens.arrays if batches.tokens else ())}
    supported = dataclasses.replace(
        wanted,
        # Stored tokens that enter the adapters have positions in the picture, so they cannot be
        # mirrored.
        mirror=0.0 if QUESTION_FREE[0] in names else wanted.mirror,
        # All stored tokens were computed with the original loudness.
        gain_db=0.0 if batches.reader is None else wanted.gain_db,
    )
    if supported != wanted:
        logging.info('train: %s becomes %s, because the towers have run already', wanted, supported)
    return supported


def _schedule(settings: ConfigDict, is_open: bool, steps_per_epoch: int):
    if is_open:
        halving = state.stepped_schedule(
            settings.learning_rate, steps_per_epoch, settings.halve_every, 0.5
        )
        steps = state.warmup_steps(
            settings.warmup_epochs, steps_per_epoch, settings.epochs * steps_per_epoch
        )
        return state.warmed_up(halving, steps)
    return state.warmup_cosine_schedule(
        settings.head_learning_rate,
        settings.head_epochs * steps_per_epoch,
        settings.head_warmup_epochs * steps_per_epoch,
        settings.head_final_share,
    )
