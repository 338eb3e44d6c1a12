"""Loads public weights into PyTorch models, and runs these. Nothing is unpickled.

This module imports PyTorch, so only processes of the stage `features` may import it.
"""

import re
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import nn

from amuse_jax.errors import StageError, first_few, first_line
from amuse_jax.features import catalogue
from amuse_jax.pretrained import files
from amuse_jax.system import sharded


def read(setting: str, where: str) -> dict[str, np.ndarray]:
    """Read the arrays of weights by name.

    Args:
      setting: a key of catalogue.WEIGHTS.
      where: the file, folder or hub name; see `files.fetch`.

    Raises:
      StageError: they cannot be read; the message says where the public file is.
    """
    with catalogue.published_in_message(setting):
        return files.read(where)


def description(setting: str, where: str) -> dict:
    """Return config.json beside weights, or {}; the arguments and errors are those of `read`."""
    with catalogue.published_in_message(setting):
        return files.description(where)


def fill(setting: str, where: str, model: nn.Module, optional: str = '') -> nn.Module:
    """Fill a model with weights, all of them and no others, and make it ready.

    Args:
      setting: a key of catalogue.WEIGHTS.
      where: see `read`.
      model: the model.
      optional: pattern of the names that may be missing.

    Returns:
      The model on the device, without dropout and gradients.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """
    arrays, wanted = read(setting, where), model.state_dict()
    missing = [n for n in wanted if n not in arrays and not re.fullmatch(optional, n)]
    unknown = [name for name in arrays if name not in wanted]
    misshapen = [
        f'{name} is {arrays[name].shape} and should be {tuple(value.shape)}'
        for name, value in wanted.items()
        if name in arrays and arrays[name].shape != tuple(value.shape)
    ]
    refuse_others(setting, where, missing, unknown, misshapen)
    model.load_state_dict(tensors(arrays), strict=False)
    return ready(model)


def fill_transformers(setting: str, where: str, model_class, config, ignored: str) -> nn.Module:
    """Build a model of the library transformers with weights; it knows older names of arrays.

    Args:
      setting: a key of catalogue.WEIGHTS.
      where: see `read`.
      model_class: the class of the model.
      config: its sizes.
      ignored: pattern of the names that the file may have and the model has not.

    Returns:
      The model on the device, without dropout and gradients.

    Raises:
      StageError: the weights cannot be read, or are those of another model.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # its report of what is missing is ours below
    logging.disable_progress_bar()
    try:
        model, found = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors(read(setting, where)),
            output_loading_info=True,
        )
    except (RuntimeError, ValueError) as error:  # arrays of other shapes
        refuse_others(setting, where, [], [], [first_line(error)])
    unknown = [name for name in found['unexpected_keys'] if not re.fullmatch(ignored, name)]
    misshapen = [str(each) for each in found['mismatched_keys']]
    refuse_others(setting, where, found['missing_keys'], unknown, misshapen)
    return ready(model)


def refuse_others(
    setting: str,
    where: str,
    missing: Collection[str],
    unknown: Collection[str],
    misshapen: Collection[str],
) -> None:
    """Refuse weights that are those of another model.

    Args:
      setting: a key of catalogue.WEIGHTS.
      where: the file, folder or hub name.
      missing: names of arrays that the model needs and the file does not have.
      unknown: names of arrays that the file has and the model has not.
      misshapen: descriptions of arrays of other shapes.

    Raises:
      StageError: one of these is not empty.
    """
    problems = [
        f'{first_few(sorted(names), ", ")} {what}'
        for names, what in ((missing, 'missing'), (unknown, 'unknown'))
        if names
    ]
    problems += [first_few(sorted(misshapen), ', ')] if misshapen else []
    if problems:
        raise StageError(
            f'config.features.{setting}: {where} holds another model ({"; ".join(problems)}); '
            f'expected {catalogue.where(setting)}'
        )


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return arrays as tensors; floats become float32."""
    return {
        name: torch.tensor(array, dtype=torch.float32 if array.dtype.kind == 'f' else None)
        for name, array in arrays.items()
    }


def ready(model: nn.Module) -> nn.Module:
    """Move a model to the device of this process, and switch off dropout and gradients."""
    torch.set_num_threads(sharded.cpus_per_worker())  # other processes work beside this one
    return model.eval().requires_grad_(False).to(device())


def device() -> torch.device:
    """Return the GPU if PyTorch finds one, else the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def to_images(pictures: np.ndarray, mean: Collection[float], std: Collection[float]):
    """Normalise pictures for a network.

    Args:
      pictures: (n, h, w, 3) uint8 RGB.
      mean, std: of each colour, on the scale from 0 to 1.

    Returns:
      (n, 3, h, w) float32 tensor on the device of this process.
    """
    images = torch.tensor(pictures, device=device()).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each, device=device())[:, None, None] for each in (mean, std))
    return (images - mean) / std
