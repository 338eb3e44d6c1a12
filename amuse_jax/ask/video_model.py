"""What a model computes once per video, before it gets a question."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from amuse_jax.models.amuse import Amuse
from amuse_jax.models.universal_encoder import UniversalEncoder


def encode(
    encoder: UniversalEncoder, frames: jax.Array, log_mel: jax.Array
) -> dict[str, jax.Array]:
    """Compute the universal encoder's features and labels of one video, with a batch axis.

    They are rounded as those that training and evaluation read from the disk.
    """
    output = encoder(frames, log_mel)
    return {
        field.name: getattr(output, field.name).astype(jnp.float16)
        for field in dataclasses.fields(output)
    }


def see(amuse: Amuse, frames: jax.Array, log_mel: jax.Array, *, is_open: bool) -> dict[str, Any]:
    """Return the inputs of Amuse that come from its own towers.

    Args:
      amuse: a model with towers.
      frames, log_mel: see InteractiveEncoder.question_free.
      is_open: whether the model was trained with open adapters.
    """
    question_free = amuse.encoder.question_free(frames, log_mel)
    if is_open:
        return {'question_free': question_free}
    return {'closed': amuse.encoder.closed(question_free)}
