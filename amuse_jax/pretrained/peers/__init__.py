"""Loads the other systems of the comparison from the files that their public code saves."""

from typing import Any

from flax import nnx

from amuse_jax.errors import StageError
from amuse_jax.models.peers import catalogue
from amuse_jax.models.peers.grounded_head import HeadConfig
from amuse_jax.pretrained import files, key_mapping
from amuse_jax.pretrained.peers import avst, dgsct, lavish, pstp

# For each peer a function from its published config and the arrays of a file to the config that
# the file was trained with, and to the table of names.
READERS = {
    'avst': avst.read,
    'avst_grounding': avst.read_grounding,
    'lavish': lavish.read,
    'dgsct': dgsct.read,
    'pstp_released': pstp.read_released,
    'pstp_paper': pstp.read_paper,
}


def load(name: str, where: str) -> nnx.Module:
    """Load a peer; arguments and errors are those of `amuse_jax.models.peers.load`."""
    peer = catalogue.find(name)
    if name not in READERS:
        raise StageError(
            f'{name} was never released, so no file holds its weights; build it with random '
            f'weights: peers.build({name!r})'
        )
    arrays = files.read(where)
    config, table = READERS[name](peer.config, arrays)
    try:
        model = abstract(name, config)
    except ValueError as error:
        raise key_mapping.ConversionError(
            f'{where} holds arrays of sizes that no {name} can have: {error}'
        ) from error
    return key_mapping.fill(model, arrays, table)


def load_grounding(where: str, head: HeadConfig) -> nnx.Module:
    """Load AVST's first training stage for a model with a head of these sizes.

    Args:
      where: the file that the public code saves, such as main_grounding_gen_best.pt.
      head: sizes of the model's head.

    Raises:
      StageError: the file cannot be read.
      ConversionError: its arrays are not those of the first stage, or they have other sizes.
    """
    grounding = load('avst_grounding', where)
    found = grounding.config.head
    if (found.width, found.match_widths) != (head.width, head.match_widths):
        raise key_mapping.ConversionError(
            f'{where} has {found.width} channels and {found.match_widths} in the match; expected '
            f'{head.width} and {head.match_widths}, the sizes of the head in the config'
        )
    return grounding


def abstract(name: str, config: Any) -> nnx.Module:
    """Return a peer of these sizes with shapes in place of arrays."""
    model = catalogue.find(name).model
    return nnx.eval_shape(lambda: model(config, rngs=nnx.Rngs(0)))
