"""Exported models on the Hugging Face hub."""

import re
from pathlib import Path

from amuse_jax.ask import exported
from amuse_jax.errors import StageError, first_line

_TIMEOUT_SECONDS = 5.0


def is_name(source: str) -> bool:
    """Return whether a text has the form of a name on the hub, USER/NAME."""
    return re.fullmatch(r'[\w-][\w.-]*/[\w-][\w.-]*', source) is not None


def download(name: str, revision: str | None = None, **options) -> Path:
    """Return the folder in the local cache with an exported model; download what is missing.

    Args:
      name: the name on the hub, USER/NAME.
      revision: a branch, a tag or a commit; None for the newest version.
      **options: options of `huggingface_hub.snapshot_download`, such as `token`.

    Raises:
      StageError: the hub cannot be reached and the cache has no such model, or there is no such
        name, or it is no exported model.
    """
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(exported.FILES),
                etag_timeout=_TIMEOUT_SECONDS,
                **options,
            )
        )
    except Exception as error:  # errors of the network and the hub have no common class
        raise StageError(
            f'there is no folder {name}, and no model of that name could be fetched from the '
            f'Hugging Face hub ({type(error).__name__}: {first_line(error)}); check the name, or '
            'download the folder on a machine with a network and give its path'
        ) from error
    if not exported.is_exported(folder):
        raise StageError(
            f'{name} on the Hugging Face hub has no {exported.CONFIG}; expected a model that '
            '`amuse export` made'
        )
    return folder
