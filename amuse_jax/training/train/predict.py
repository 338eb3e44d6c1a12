"""Answers of the best checkpoint, with importance scores and attention weights."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amuse_jax.data import pipeline
from amuse_jax.models import building
from amuse_jax.models.amuse import Amuse
from amuse_jax.music_avqa import Question
from amuse_jax.system import preemption
from amuse_jax.training import checkpoints, device_memory, sharding, state
from amuse_jax.training.step import evaluation_step
from amuse_jax.training.train import answering
from amuse_jax.training.train import stage as train
from amuse_jax.training.watchdog import Watchdog

QUESTION_ARRAYS = ('weights', 'question', 'record')  # arrays that identify a batch's questions


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer to one question.

    Attributes:
      question: the question.
      record: index of the video's record in videos.json.
      probabilities: (42,) float32, the probability of each answer in vocabulary.ANSWERS.
      importance: the importance of each stream; the values sum to one (Fig. 5). A peer has none.
      region_weights: (T, K), each region's share of the attention to regions; (T, 0) if the model
        has no regions. None of a peer.
      time_weights: (T,) for each stream, the attention inside the stream to each segment.
    """

    question: Question
    record: int
    probabilities: np.ndarray
    importance: dict[str, float] = dataclasses.field(default_factory=dict)
    region_weights: np.ndarray | None = None
    time_weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def load_best(config: ConfigDict, inputs: Mapping[str, Path]) -> Amuse:
    """Load the trained Amuse with the best validation accuracy.

    Args:
      config: the config that it was trained with.
      inputs: the folders of the stages rois and train, by name.

    Raises:
      StageError: there is no checkpoint, or the config has other sizes.
    """
    structure, params, frozen = load_parts(config, inputs, sharding.mesh(config.mesh))
    return structure.merge(params | frozen)


def predict(
    config: ConfigDict, inputs: Mapping[str, Path], split: str, encoded: Path
) -> Iterator[Prediction]:
    """Answer every question of a split exactly once; the videos are in the order of the records.

    Args:
      config: the config that the model was trained with.
      inputs: the folders of the stages prepare, rois, pretrain and train, by name.
      split: train, val, test or rephrased.
      encoded: the folder with the frozen towers' tokens for the records of prepare; it is not read
        if the towers were trained.

    Raises:
      StageError: load_best raises it, the split has no question, or the inputs do not match each
        other.
      Preempted: there are several processes and a notice of preemption arrived.
    """
    from scipy.special import softmax  # takes a while to import, and `load_best` needs none

    mesh = sharding.mesh(config.mesh)
    structure, params, frozen = load_parts(config, inputs, mesh)
    streams = structure.merge(params | frozen).streams
    is_frozen = train.towers_are_frozen(params)
    source = answering.BatchSource(config, inputs, streams, encoded if is_frozen else None)
    table, is_open = source.table(), config.train.epochs > 0
    videos = sharding.padded_batch_size(config.evaluate.batch_size, mesh)
    batches = source.batches(table, split, videos, is_open=is_open)
    # The same program as in the validation, so that a compilation cache holds it already.
    answer = evaluation_step(
        functools.partial(answering.answer, is_open=is_open),
        structure,
        config.loop.optimization_level,
        mesh,
    )
    answered = answer_batches(
        config,
        inputs['train'],
        f'of {split}',
        batches.once(),
        functools.partial(answer, params, frozen),
        answering.METRICS,
        [video['video_id'] for video in source.reader().videos],
    )
    for output, batch in answered:
        probabilities = softmax(output.logits, axis=-1)
        for video, slot in np.argwhere(batch['weights'] > 0):
            segments = output.time_weights.shape[-1]
            yield Prediction(
                question=table.questions[batch['question'][video, slot]],
                record=int(batch['record'][video]),
                probabilities=probabilities[video, slot],
                importance=dict(zip(streams, output.importance[video, slot].tolist())),
                region_weights=output.region_weights[video, slot].reshape(segments, -1),
                time_weights=dict(zip(streams, output.time_weights[video, slot])),
            )


def answer_batches(
    config: ConfigDict,
    folder: Path,
    name: str,
    batches: grain.MapDataset,
    answer: Callable[..., Any],
    metrics: tuple[str, ...],
    video_ids: Sequence[str],
) -> Iterator[tuple[Any, pipeline.Batch]]:
    """Answer batches of questions with a trained model.

    Args:
      config: the config of the run.
      folder: the folder of the train stage.
      name: what the batches are, for messages.
      batches: batches of pipeline.QuestionBatches.
      answer: `answer(batch, sums)` of step.evaluation_step, with the model's arrays.
      metrics: names of the sums.
      video_ids: the video id of each record, for messages.

    Yields:
      The output for each batch, and the batch's QUESTION_ARRAYS.

    Raises:
      Preempted: there are several processes and a notice of preemption arrived.
    """
    mesh = sharding.mesh(config.mesh)
    sums = sharding.shard_params(state.empty_sums(metrics), sharding.replicated(mesh))
    with (
        device_memory.full_as_error('evaluate', 'lower evaluate.batch_size'),
        Watchdog(folder, config.loop.stuck_seconds, video_ids) as watchdog,
    ):
        for number, batch in enumerate(pipeline.iterate(batches), 1):
            watchdog.heartbeat(f'the answers of batch {number} {name}')
            preemption.stop_on_notice()
            sharded = sharding.shard_batch(batch, mesh)
            _, output = answer(sharded, sums)
            yield sharding.fetch((output, {n: sharded[n] for n in QUESTION_ARRAYS}))


def load_parts(
    config: ConfigDict, inputs: Mapping[str, Path], mesh: Mesh
) -> tuple[state.Structure, state.Arrays, state.Arrays]:
    """Load the model's structure, its best trained arrays and its frozen arrays.

    Args:
      config, inputs: see load_best.
      mesh: the device mesh that shards the arrays.

    Raises:
      StageError: see load_best.
    """
    make = functools.partial(answering.build, config, inputs['rois'])
    return read_best_parts(make, config.train.trainable, inputs['train'], mesh)


def read_best_parts(
    make: Callable[[nnx.Rngs], nnx.Module], trainable: str, folder: Path, mesh: Mesh
) -> tuple[state.Structure, state.Arrays, state.Arrays]:
    """Load the structure, the best trained arrays and the frozen arrays of a train stage.

    Args:
      make: builds the model from random keys.
      trainable: the regular expression that chose the trained parameters.
      folder: the folder of the train stage.
      mesh: the device mesh that shards the arrays.

    Raises:
      StageError: there is no checkpoint, or the model has other sizes.
    """
    structure, *parts = state.split(building.shapes(make), trainable)
    params, frozen = (
        sharding.abstract_arrays(part, sharding.parameter_shardings(part, mesh)) for part in parts
    )
    params, _ = checkpoints.read_best(folder / 'best', params)
    return structure, params, checkpoints.read_frozen(folder / 'frozen', frozen)
