"""`manifest.json`: the record of the settings and inputs of a finished stage."""

import json
from collections.abc import Mapping
from pathlib import Path

from amuse_jax.errors import StageError
from amuse_jax.system.formats import FORMAT, refuse_newer

MANIFEST = 'manifest.json'


def read_manifest(folder: Path) -> dict | None:
    """Read the manifest of a finished stage; return None where there is none.

    Raises:
      StageError: the file is not a manifest, or a newer version wrote it.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text('utf-8'))
        refuse_newer(manifest['format'], FORMAT, path)
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(
            f'{path} is not a manifest ({error}); move the folder {folder} away to make it again'
        ) from error
    return manifest


def describe_changes(old: Mapping, new: Mapping, prefix: str = '') -> str:
    """Return the differences as text, such as 'data.image_size is 128 and was 64, ...'.

    Args:
      old: the earlier settings, by name; values may be nested mappings.
      new: the present settings.
      prefix: the dotted name of the section that holds these settings.

    Returns:
      The text; '' if nothing differs.
    """
    differences = []
    for name in sorted(set(old) | set(new)):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inner = describe_changes(before, after, f'{prefix}{name}.')
            differences += [inner] if inner else []
        elif before != after:
            differences.append(f'{prefix}{name} is {after!r} and was {before!r}')
    return ', '.join(differences)
