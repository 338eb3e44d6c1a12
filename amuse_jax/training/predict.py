"""Answers of the best checkpoint, with what they rest on."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from scipy.special import softmax

from amuse_jax.data import pipeline
from amuse_jax.data.music_avqa import Question
from amuse_jax.models.amuse import Amuse
from amuse_jax.training import answering, checkpoints, sharding, state, train
from amuse_jax.training.step import evaluation_step


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
    structure, params, frozen = load_parts(config, inputs)
    return structure.merge(params | frozen)


def predict(
    config: ConfigDict, inputs: Mapping[str, Path], split: str, encoded: Path | None = None
) -> Iterator[Prediction]:
    """Answers every question of a split exactly once, videos in the order of the records.

    Args:
      config: the one that the model was trained with.
      inputs: the folders of prepare, rois, pretrain and train.
      split: train, val or test.
      encoded: folder of the frozen towers' tokens for the records of prepare; None: train's own.

    Raises:
      StageError: as load_best; no question in the split; inputs that do not fit each other.
    """
    structure, params, frozen = load_parts(config, inputs)
    streams = structure.merge(params | frozen).streams
    encoded = encoded or inputs['train'] / 'encoded'
    is_frozen = train.towers_are_frozen(params)
    source = answering.Source(config, inputs, streams, encoded if is_frozen else None)
    table, is_open = source.table(), config.train.epochs > 0
    batches = source.batches(table, split, config.evaluate.batch_size, is_open=is_open)
    mesh = sharding.mesh()
    zeros = {name: np.zeros(2, np.float32) for name in answering.METRICS}
    params, frozen, sums = sharding.replicate((params, frozen, zeros), mesh)
    # The validation's own program: it is compiled already.
    answer = evaluation_step(
        functools.partial(answering.answer, is_open=is_open),
        structure,
        config.loop.optimization_level,
    )

    for batch in pipeline.iterate(batches.once()):
        _, output = jax.device_get(answer(params, frozen, sharding.place(batch, mesh), sums))
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
    config: ConfigDict, inputs: Mapping[str, Path]
) -> tuple[state.Structure, state.Arrays, state.Arrays]:
    """Structure, best trained and frozen arrays of the model; arguments and errors as load_best."""
    model = nnx.eval_shape(lambda: answering.build(config, inputs['rois'], nnx.Rngs(0)))
    structure, params, frozen = state.split(model, config.train.trainable)
    params, _ = checkpoints.read_best(inputs['train'] / 'best', params)
    return structure, params, checkpoints.read_frozen(inputs['train'] / 'frozen', frozen)
