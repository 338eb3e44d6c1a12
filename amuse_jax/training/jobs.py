"""What a training job consists of: its phases, their data and where the results go."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import grain
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amuse_jax.training import token_cache
from amuse_jax.training.state import Arrays, Structure
from amuse_jax.training.step import Evaluation, Loss


@dataclasses.dataclass(frozen=True)
class Validation:
    """The validation at the end of every epoch.

    Attributes:
      batches: one pass over the validation set.
      evaluate: see step.Evaluation.
    """

    batches: grain.MapDataset
    evaluate: Evaluation


@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase of training with its own data, loss, schedule and newly initialised optimiser.

    Attributes:
      epochs: number of epochs.
      batches: the batches of all epochs, `len(batches) / epochs` in each.
      loss: see step.Loss.
      learning_rate: the schedule, a function of the step within the phase.
      samples: the metric whose weight is the number of samples.
      validation: runs after every epoch; None: no validation.
      parts: number of parts of a batch, see step.train_step; 0: as few as fit into the memory of
        the devices.
      compares_videos: whether the loss compares videos of a batch, see step.train_step.
      clip_norm: largest norm of the gradient, see step.train_step.
      weight_decay: AdamW's; 0: Adam.
      patience: of the last phase, which ends early when so many epochs have not improved on the
        best validation (`Job.best_by`); 0: it does not.
      tokens: the stored tokens that `batches` and the validation read; None: they read none.
    """

    epochs: int
    batches: grain.MapDataset
    loss: Loss
    learning_rate: optax.Schedule
    samples: str
    validation: Validation | None = None
    parts: int = 1
    compares_videos: bool = False
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    patience: int = 0
    tokens: token_cache.TokenCache | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in one epoch."""
        return len(self.batches) // self.epochs


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train, and where to save the results.

    Attributes:
      name: name in the progress bar and the log.
      folder: gets checkpoints/, metrics.jsonl, tensorboard/ and, with `best_by`, best/.
      structure: the model's structure.
      frozen: arrays that do not train.
      metrics: names of the sums that the losses return.
      phases: the phases in order.
      settings: the config's section `loop`.
      mesh: the device mesh, from sharding.mesh.
      seed: seed of dropout and other random numbers in the model.
      video_ids: the video id of each record, for messages.
      best_by: the parameters with the best validation value of this metric are saved in best/;
        '': none are.
      best_is_lowest: whether the lowest value is the best; else the highest is.
      memory_advice: how to do with less memory; the last part of the error if it is full.
    """

    name: str
    folder: Path
    structure: Structure
    frozen: Arrays
    metrics: tuple[str, ...]
    phases: Sequence[Phase]
    settings: ConfigDict
    mesh: Mesh
    seed: int
    video_ids: Sequence[str]
    best_by: str = ''
    best_is_lowest: bool = False
    memory_advice: str = 'make the batches smaller'

    def summary(self, params: Arrays, record: Mapping) -> dict:
        """Return what a finished stage tells in its manifest.

        Args:
          params: the trained parameters.
          record: the record of the best validation.
        """
        return {
            'steps': sum(len(phase.batches) for phase in self.phases),
            'trainable_parameters': sum(array.size for array in params.values()),
            'frozen_parameters': sum(array.size for array in self.frozen.values()),
            'best': record,
        }
