"""Removes what trainers put before the names of a model's arrays."""

from collections.abc import Collection, Mapping

import numpy as np

# From DataParallel, Lightning and other trainers, torch.compile, and models with a backbone.
SHARED = ('module.', 'model.', '_orig_mod.', 'backbone.')
LIGHTNING = 'sed_model.'  # prefix of the tower in HTS-AT's released file, beside a loss
COUNTERS = ('n_averaged',)  # torch.optim.swa_utils.AveragedModel counts beside the model


def removed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays without the prefixes that all their names share.

    Args:
      arrays: a checkpoint's arrays by name.

    Returns:
      The same arrays. Of HTS-AT's released file only the tower's are returned.
    """
    found = {name: array for name, array in arrays.items() if name not in COUNTERS}
    while prefix := next((p for p in SHARED if _all_begin(found, p)), ''):
        found = {name.removeprefix(prefix): array for name, array in found.items()}
    tower = {
        name.removeprefix(LIGHTNING): array
        for name, array in found.items()
        if name.startswith(LIGHTNING)
    }
    return tower or found


def _all_begin(names: Collection[str], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)
