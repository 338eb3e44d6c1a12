"""Answers of the best checkpoint, with what they rest on."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from scipy.special import softmax

from amuse_jax.data import pipeline
from amuse_jax.models.amuse import Amuse
from amuse_jax.music_avqa import Question
from amuse_jax.system import preemption
from amuse_jax.training import checkpoints, sharding, state
from amuse_jax.training.step import evaluation_step
from amuse_jax.training.train import answering
from amuse_jax.training.train import stage as train
from amuse_jax.training.watchdog import Watchdog

ASKED = ('weights', 'question', 'record')  # arrays of a batch that say what was asked


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One question's answer.

    Attributes:
      question: the question.
      record: its record, index into videos.json.
      probabilities: (42,) float32, of vocabulary.ANSWERS.
      importance: per stream; they sum to one (Fig. 5).
      region_weights: (T, K), share of the attention to regions that each one got; (T, 0) without.
      time_weights: per stream (T,), how the attention inside it spread over the segments.
    """

    question: Question
    record: int
    probabilities: np.ndarray
    importance: dict[str, float]
    region_weights: np.ndarray
    time_weights: dict[str, np.ndarray]


def load_best(config: ConfigDict, inputs: Mapping[str, Path]) -> Amuse:
    """The trained Amuse with the best validation accuracy.

    Args:
      config: the one that it was trained with.
      inputs: the folders of rois and train.

    Raises:
      StageError: there is none, or the config has other sizes.
    """
    structure, params, frozen = load_parts(config, inputs, sharding.mesh(config.mesh))
    return structure.merge(params | frozen)


def predict(
    config: ConfigDict, inputs: Mapping[str, Path], split: str, encoded: Path
) -> Iterator[Prediction]:
    """Answers every question of a split exactly once, videos in the order of the records.

    Args:
      config: the one that the model was trained with.
      inputs: the folders of prepare, rois, pretrain and train.
      split: train, val, test or rephrased.
      encoded: folder of the frozen towers' tokens for the records of prepare; not read where the
        towers were trained.

    Raises:
      StageError: as load_best; no question in the split; inputs that do not fit each other.
      Preempted: several processes got a notice.
    """
    mesh = sharding.mesh(config.mesh)
    structure, params, frozen = load_parts(config, inputs, mesh)
    streams = structure.merge(params | frozen).streams
    is_frozen = train.towers_are_frozen(params)
    source = answering.Source(config, inputs, streams, encoded if is_frozen else None)
    table, is_open = source.table(), config.train.epochs > 0
    videos = sharding.filled_up(config.evaluate.batch_size, mesh)
    batches = source.batches(table, split, videos, is_open=is_open)
    sums = sharding.put(state.empty_sums(answering.METRICS), sharding.whole(mesh))
    # The validation's own program: it is compiled already.
    answer = evaluation_step(
        functools.partial(answering.answer, is_open=is_open),
        structure,
        config.loop.optimization_level,
        mesh,
    )
    video_ids = [video['video_id'] for video in source.reader().videos]
    with Watchdog(inputs['train'], config.loop.stuck_seconds, video_ids) as watchdog:
        for number, batch in enumerate(pipeline.iterate(batches.once()), 1):
            watchdog.at(f'the answers of batch {number} of {split}')
            preemption.stop_if_noticed()
            placed = sharding.place(batch, mesh)
            _, output = answer(params, frozen, placed, sums)
            output, batch = sharding.fetch((output, {name: placed[name] for name in ASKED}))
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


def load_parts(
    config: ConfigDict, inputs: Mapping[str, Path], mesh: Mesh
) -> tuple[state.Structure, state.Arrays, state.Arrays]:
    """Structure, best trained and frozen arrays of the model, shared out over the mesh; other
    arguments and errors as load_best."""
    model = nnx.eval_shape(lambda: answering.build(config, inputs['rois'], nnx.Rngs(0)))
    structure, *parts = state.split(model, config.train.trainable)
    params, frozen = (sharding.shapes(part, sharding.of_parameters(part, mesh)) for part in parts)
    params, _ = checkpoints.read_best(inputs['train'] / 'best', params)
    return structure, params, checkpoints.read_frozen(inputs['train'] / 'frozen', frozen)
