"""Answers of a peer's best checkpoint."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from amuse_jax.models.peers import sizes
from amuse_jax.training import sharding
from amuse_jax.training.peers import answering
from amuse_jax.training.peers.batches import PeerBatches
from amuse_jax.training.step import evaluation_step
from amuse_jax.training.train.predict import Prediction, answer_batches, read_best_parts


def predict(config: ConfigDict, inputs: Mapping[str, Path], split: str) -> Iterator[Prediction]:
    """Answer every question of a split exactly once; the videos are in the order of the records.

    Args:
      config: the config that the peer was trained with.
      inputs: the folders of the stages, as for training, and of train.
      split: train, val, test or rephrased.

    Yields:
      Predictions without importance and without weights of regions and segments.

    Raises:
      StageError: there is no checkpoint, the config has other sizes, the split has no question, or
        the inputs do not match each other.
      Preempted: there are several processes and a notice of preemption arrived.
    """
    from scipy.special import softmax  # takes a while to import

    source = PeerBatches(config, inputs)
    make = functools.partial(sizes.build, config, source.vocabulary)
    structure, params, frozen = read_best_parts(
        make, config.peer.trainable, inputs['train'], source.mesh
    )
    # The same program as in the validation, so that a compilation cache holds it already.
    answer = evaluation_step(
        answering.answer, structure, config.loop.optimization_level, source.mesh
    )
    answered = answer_batches(
        config,
        inputs['train'],
        f'of {split}',
        source.once(split, sharding.padded_batch_size(config.evaluate.batch_size, source.mesh)),
        functools.partial(answer, params, frozen),
        answering.METRICS,
        [video['video_id'] for video in source.reader.videos],
    )
    for logits, batch in answered:
        probabilities = softmax(logits, axis=-1)
        for video, slot in np.argwhere(batch['weights'] > 0):
            yield Prediction(
                question=source.table.questions[batch['question'][video, slot]],
                record=int(batch['record'][video]),
                probabilities=probabilities[video, slot],
            )
