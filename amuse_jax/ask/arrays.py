"""The arrays of a trained model under one flat naming, and their file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from safetensors import SafetensorError, safe_open

from amuse_jax.ask.trained import Trained
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError, first_few, first_line
from amuse_jax.models import building
from amuse_jax.models.amuse import Amuse, AmuseConfig, Phrases
from amuse_jax.training import state
from amuse_jax.training.pretrain import stage as pretrain

AMUSE, ENCODER = 'amuse.', 'encoder.'  # beginnings of the names: Amuse, the universal encoder
AGAIN = 'export the model again, or copy or download the folder again'

# A model without its arrays, and their shapes by name.
Split = tuple[state.Structure, state.Arrays]


def of_model(trained: Trained) -> dict[str, np.ndarray]:
    """Return the arrays of a model by the names that they have in the file of weights."""
    arrays = {
        prefix + name: array
        for prefix, model in ((AMUSE, trained.amuse), (ENCODER, trained.encoder))
        for name, array in state.flatten(model)[1].items()
    }
    return jax.device_get(arrays)


def structures(config: ConfigDict, class_names: tuple[str, ...]) -> tuple[Split, Split]:
    """Return the structures of Amuse and the universal encoder, with the shapes of their arrays.

    Args:
      config: the settings of the model.
      class_names: names of the detector's classes.
    """
    phrases = Phrases.from_settings(QuestionTokenizer(config.model.text), class_names)
    sizes = AmuseConfig.from_settings(config)

    def abstract(make) -> Split:
        return state.flatten(building.shapes(make))

    return (
        abstract(lambda rngs: Amuse(sizes, phrases, rngs=rngs)),
        abstract(lambda rngs: pretrain.build(config, rngs)),
    )


def without_prefix(prefix: str, arrays: Mapping[str, Any]) -> state.Arrays:
    """Return the arrays whose names begin with AMUSE or ENCODER, under the rest of their names."""
    return {
        name.removeprefix(prefix): jnp.asarray(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def expected(amuse: Split, encoder: Split) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes and dtypes of all arrays by the names that they have in a file.

    Args:
      amuse, encoder: what `structures` returns.
    """
    return {
        prefix + name: shape
        for prefix, (_, shapes) in ((AMUSE, amuse), (ENCODER, encoder))
        for name, shape in shapes.items()
    }


def read(path: Path, expected: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Read a file of arrays, which must be exactly the expected ones.

    Args:
      path: a safetensors file.
      expected: the shapes and dtypes by name.

    Raises:
      StageError: the file is missing or damaged, or its names, shapes or dtypes are others.
    """
    if not path.is_file():
        raise StageError(f'there is no file {path}; {AGAIN}')
    try:
        with safe_open(path, 'numpy') as file:  # the file is memory-mapped
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            problems = _differences(found, expected)
            arrays = {} if problems else {name: file.get_tensor(name) for name in found}
    except (SafetensorError, OSError) as error:
        raise StageError(
            f'{path} is not a complete safetensors file ({first_line(error)}); {AGAIN}'
        ) from error
    problems += [
        f'{name}: {array.dtype} in the file, {expected[name].dtype} expected'
        for name, array in arrays.items()
        if array.dtype != expected[name].dtype
    ]
    if problems:
        raise StageError(
            f'{path} does not match the settings beside it ({len(problems)} differences):\n  '
            + first_few(problems, '\n  ')
            + f'\nSo it belongs to another model, or was changed: {AGAIN}.'
        )
    return arrays


def _differences(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, jax.ShapeDtypeStruct]
) -> list[str]:
    problems = [f'{name}: not in the file' for name in expected if name not in found]
    problems += [f'{name}: not in the model' for name in found if name not in expected]
    problems += [
        f'{name}: {shape} in the file, {expected[name].shape} expected'
        for name, shape in found.items()
        if name in expected and shape != expected[name].shape
    ]
    return problems
