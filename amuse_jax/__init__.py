"""Amuse: music performance question answering in JAX.

    import amuse_jax
    model = amuse_jax.load('runs/demo')
    video = model.watch('concert.mp4')
    answer = video.ask('How many sounding violins in the video?')

docs/asking.md has the whole interface.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amuse_jax.ask.model import Model


def load(source: str, revision: str | None = None) -> 'Model':
    """Load a trained model.

    Args:
      source: the workdir of a finished run, such as 'runs/demo', or a folder that `amuse export`
        made, or a name on the Hugging Face hub, 'user/name'.
      revision: a branch, a tag or a commit of that name; None for the newest version.

    Returns:
      The model, whose settings are those that were saved with it.

    Raises:
      amuse_jax.errors.StageError: there is no trained model, or it cannot be read.
    """
    from amuse_jax.ask import model  # JAX takes seconds to import

    return model.load(source, revision)
