"""Random weights of the peers' PyTorch side, and their conversion to amuse_jax.

The names are those of the public classes, so the conversion is that of the files that they save.
"""

from typing import Any

import numpy as np
from flax import nnx
from torch import nn

from amuse_jax.benchmark.reference import weights
from amuse_jax.benchmark.reference.peers import avst, dgsct, lavish, parts, pstp, swin
from amuse_jax.pretrained import key_mapping, peers

MODELS = {
    'avst': avst.AVST,
    'pstp_released': pstp.PSTPReleased,
    'pstp_paper': pstp.PSTPPaper,
    'lavish': lavish.LAVISH,
    'dgsct': dgsct.DGSCT,
}


def build(name: str, config: Any) -> nn.Module:
    """Return a peer with random weights, without dropout.

    Args:
      name: a name from MODELS.
      config: its sizes, as for the model in models/peers.
    """
    model = parts.randomise(MODELS[name](config))
    if name == 'dgsct':
        dgsct.soften(model)
    for module in model.modules():
        if isinstance(module, nn.LSTM):  # cuDNN has its gradient in training mode alone
            module.train()
    return model


def fill(name: str, config: Any, reference: nn.Module) -> nnx.Module:
    """Return the model of models/peers with the reference's weights.

    Raises:
      ConversionError: an array of one side has no counterpart of the same shape on the other side.
    """
    arrays = released_arrays(reference)
    config, table = peers.READERS[name](config, arrays)
    return key_mapping.fill(peers.abstract(name, config), arrays, table)


def set_trainable(name: str, config: Any, reference: nn.Module, trainable: str) -> None:
    """Make only some parameters of the reference trainable.

    Args:
      name, config: see `build`.
      reference: the model.
      trainable: see parsing.parse_trainable; the names are those in amuse_jax.
    """
    _, table = peers.READERS[name](config, released_arrays(reference))
    weights.set_trainable(reference, table, trainable, swin.released_name)


def released_arrays(reference: nn.Module) -> dict[str, np.ndarray]:
    """Return the reference's arrays by their names in the public class's state dict."""
    return {swin.released_name(name): array for name, array in parts.state(reference).items()}
