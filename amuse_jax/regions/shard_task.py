"""One shard of regions, as a task for another process or another machine.

This module imports PyTorch only when the task runs, after the environment of the process is set up.
"""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.regions import environment


def write_regions(
    config: ConfigDict, detector_path: Path, root: Path, video_ids: Sequence[str], path: Path
) -> None:
    """Write one shard with the detector at `detector_path`; see `shards.write_regions`."""
    environment.set_up()
    from amuse_jax.regions import shards
    from amuse_jax.regions.finder import Finder

    shards.write_regions(Finder.from_settings(config, detector_path), root, video_ids, path)
