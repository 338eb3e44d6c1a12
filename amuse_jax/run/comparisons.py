"""Commands that run many configs in one workdir and print their table: ablations and peers."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.config import PARTS
from amuse_jax.evaluation import ablations
from amuse_jax.evaluation import peers as peers_table
from amuse_jax.evaluation.stage import AMUSE
from amuse_jax.models.peers import catalogue
from amuse_jax.run import peers
from amuse_jax.run.definition import head_suffix
from amuse_jax.system import hosts


def run(
    name: str, config: ConfigDict, workdir: Path, run_whole: Callable[[ConfigDict], Path]
) -> None:
    """Train and evaluate every config of a comparison, and print its table.

    Args:
      name: a key of TABLES.
      config: the run's config.
      workdir: the run's folder; the table is written to its folder `name`, or `name-paper-head`.
      run_whole: runs all stages of a config and returns the evaluate folder.
    """
    rows, write = TABLES[name]
    folders = {row: run_whole(variant) for row, variant in rows(config).items()}
    if hosts.is_first():
        print(write(workdir / f'{name}{head_suffix(config)}', folders))


def configs(config: ConfigDict, names: Collection[str]) -> list[ConfigDict]:
    """Return the configs that the named comparisons will run.

    Raises:
      StageError: the config names no peer.
    """
    return [
        variant
        for name in TABLES.keys() & set(names)
        for variant in TABLES[name][0](config).values()
    ]


def _ablations(config: ConfigDict) -> dict[str, ConfigDict]:
    """Return the config of every row of Table 4, by the part that is left out ('' for none)."""
    variants = {}
    for part in ('', *PARTS):
        variants[part] = config.copy_and_resolve_references()
        with variants[part].unlocked():
            variants[part].without = part
    return variants


def _peers(config: ConfigDict) -> dict[str, ConfigDict]:
    """Return the config of every row of Table 2, by the name of the row."""
    found = peers.configs(config)
    return {AMUSE: config} | {catalogue.find(name).title: each for name, each in found.items()}


# By name for --stages: the configs by row, and what writes the table of their evaluate folders.
TABLES: dict[str, tuple[Callable[..., Mapping[str, ConfigDict]], Callable[..., str]]] = {
    'ablations': (_ablations, ablations.write),
    'peers': (_peers, peers_table.write),
}
