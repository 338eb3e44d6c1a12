"""The parts of a trained model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.ask.familiar import Familiar
from amuse_jax.models.amuse import Amuse
from amuse_jax.models.universal_encoder import UniversalEncoder


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
      config: the settings that it was made with.
      amuse: the model.
      encoder: the pretrained universal encoder, whose features the model reads.
      class_names: names of the detector's classes, in index order.
      detector: the detector's weights; a model without regions may have no such file.
      familiar: the words and forms of its training questions.
      seen: the file with the hashes of its questions (training/train/leakage.py).
      card: returns the text of its model card.
    """

    config: ConfigDict
    amuse: Amuse
    encoder: UniversalEncoder
    class_names: tuple[str, ...]
    detector: Path
    familiar: Familiar
    seen: Path
    card: Callable[[], str]
