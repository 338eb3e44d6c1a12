"""Format numbers of the files that a run writes, and the check against files of newer versions.

Raise a number when older code can no longer read what is written.
"""

from pathlib import Path

from amuse_jax.errors import NewerFormat

FORMAT = 2  # of stages and their manifests; format 1 is read too (run/results.py)
RECORD_FORMAT = 1  # data/records.py
EXPORT_FORMAT = 1  # ask/exported.py
CHECKPOINT_FORMAT = 2  # training/checkpoints.py, pretrained/towers.py


def refuse_newer(found: int, newest: int, where: str | Path) -> None:
    """Raise `NewerFormat` if the file was written by a newer version.

    Call this before reading anything else from it.

    Args:
      found: the file's format.
      newest: one of the formats above.
      where: the file's name in the message.

    Raises:
      NewerFormat: only a newer version of amuse_jax can read the file.
      ValueError: `found` is not a number.
    """
    if not isinstance(found, int):
        raise ValueError(f'its format is {found!r}, expected a number')
    if found > newest:
        raise NewerFormat(
            f'{where} has format {found}, this version of amuse_jax reads up to {newest}; '
            'update amuse_jax, or use another --workdir'
        )
