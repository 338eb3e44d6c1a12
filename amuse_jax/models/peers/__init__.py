"""The systems that Amuse is compared with, as their authors released or described them.

from amuse_jax.models import peers
model = peers.load('avst', 'avst.pt')
logits = model.logits(peers.example('avst', batch=2, seed=0))
"""

import numpy as np
from flax import nnx

from amuse_jax.models import building
from amuse_jax.models.peers import catalogue


def load(name: str, where: str) -> nnx.Module:
    """Load a peer from the file that its public code saves.

    Args:
      name: one of catalogue.PEERS.
      where: a .safetensors, .pt or .pth file with the state dict of the public class; its names may
        have the prefix `module.`. Nothing is unpickled. Sizes that are options of the public class
        are taken from the shapes.

    Returns:
      The model in float32; `model.logits(inputs)` answers, and `example` shows the inputs.

    Raises:
      StageError: there is no such peer, it was never released, or the file cannot be read.
      ConversionError: the arrays of the file are not those of the public class.
    """
    # The tables of names stand above the models, beside those of the towers.
    from amuse_jax.pretrained import peers

    return peers.load(name, where)


def build(name: str, seed: int = 0) -> nnx.Module:
    """Return a peer of the published sizes with random weights, drawn as in the original.

    Raises:
      StageError: there is no such peer.
    """
    peer = catalogue.find(name)
    return building.build(lambda rngs: peer.model(peer.config, rngs=rngs), seed)


def example(name: str, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random inputs of a peer by name, in the shapes that it takes.

    The docstring of the model's `__call__` says what each one is.

    Raises:
      StageError: there is no such peer.
    """
    peer = catalogue.find(name)
    return peer.example(peer.config, batch, seed)
