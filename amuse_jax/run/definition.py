"""What a stage is: its name, its inputs, its settings and what happens to a result it replaces."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax.config import HEADS
from amuse_jax.data.sources import Comparison

Run = Callable[[ConfigDict, Path, Mapping[str, Path]], dict]
CompareSources = Callable[[ConfigDict, Path, Mapping[str, Path]], Comparison | None]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the run.

    Attributes:
      name: the stage's name, as in `--stages`.
      run: `run(config, folder, inputs)` fills `folder` and returns a summary of JSON values.
        `inputs` maps the name of each needed stage to its folder. If an earlier call was killed, it
        continues.
      needs: names of the stages whose folders it reads. A name that is not among the run's stages
        is ignored.
      settings: dotted names of the config values that determine the result; the name of a section
        stands for the whole section.
      folder: the stage's folder in the workdir, if it differs from the name. Ablations have their
        own folders.
      on_all_hosts: whether all hosts take part in it, or the first host alone.
      is_kept: whether a result with other settings is set aside. Otherwise it is removed, because
        it can be made again from what is kept.
      truth: `truth(config)` returns the pattern of the files that it reads in the data set's folder
        truth/, such as '*.json'; '' for none. None for a stage that never reads there.
      compare_sources: `compare_sources(config, folder, inputs)` compares the data set's files with
        those that the result was made from; None for a stage that reads none.
    """

    name: str
    run: Run
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    folder: str = ''
    on_all_hosts: bool = False
    is_kept: bool = False
    truth: Callable[[ConfigDict], str] | None = None
    compare_sources: CompareSources | None = None

    def path(self, workdir: Path) -> Path:
        """Return the stage's folder."""
        return workdir / (self.folder or self.name)

    def inputs(self, workdir: Path, stages: Mapping[str, 'Stage']) -> dict[str, Path]:
        """Return the folders of the stages that it reads, by name."""
        return {name: stages[name].path(workdir) for name in self.needs if name in stages}

    def compare(
        self, config: ConfigDict, workdir: Path, stages: Mapping[str, 'Stage']
    ) -> Comparison | None:
        """Call `compare_sources`; return None for a stage that has none."""
        if self.compare_sources is None:
            return None
        return self.compare_sources(config, self.path(workdir), self.inputs(workdir, stages))


def head_suffix(config: ConfigDict) -> str:
    """Return the end of the names of the folders that are not those of our answer head."""
    return '' if config.model.head == HEADS[0] else f'-{config.model.head}-head'
