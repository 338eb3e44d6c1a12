"""The stage `features`: what VGGish, ResNet-18, CLIP and AST make of every video, in arrays.

This process does not import PyTorch. A spawned process (worker.py) does the work, and it ends
before training in JAX begins.
"""

import functools
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.errors import StageError
from amuse_jax.features import catalogue, shards, worker
from amuse_jax.pretrained import files
from amuse_jax.system import contents
from amuse_jax.system.processes import Process


def run(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Compute the arrays in `features.arrays` for all records.

    The stage writes NAME.npy in float16 for every array, with the shapes in catalogue.py: row i
    belongs to record i, or to the text i of `questions.json` for the arrays of questions. It also
    writes `seconds.npy` (N, 60) bool, the seconds that the record's sound has, and `report.json`.
    Where a video has nothing, its arrays are 0. A video that cannot be read, though prepare has
    read it, gets zeros, no seconds, and is named in the report.

    Args:
      config: the whole config; `features` and `data` are read.
      folder: the stage's folder.
      inputs: folders of 'prepare' and, if the data set is rendered, 'render'.

    Returns:
      The contents of `report.json`: 'records', 'questions' (0 without arrays of questions),
      'arrays' and 'unreadable', the reason by video.

    Raises:
      PartDone: the shards that `data.part` names are written, and others may be missing.
      StageError: the weights cannot be used, or a video is gone.
    """
    path = folder / worker.REPORT
    if not path.exists():  # written last
        root = music_avqa.data_root(config, inputs)
        arguments = config, folder, root, inputs['prepare']
        with _process() as process:
            process.call(worker.run, *arguments)
    report = json.loads(path.read_text('utf-8'))
    for video_id, reason in report['unreadable'].items():
        logging.warning('features: %s gets features of 0: %s', video_id, reason)
    return report


def check(config: ConfigDict) -> None:
    """Make sure that the stage has the weights and packages it needs, before hours of work.

    Files on the hub are downloaded.

    Raises:
      StageError: something is missing or cannot be used; the message says which file from where.
    """
    missing = catalogue.missing_weights(config)
    if missing:
        raise StageError(f'the stage features lacks files: {". ".join(missing)}')
    extractors = catalogue.chosen(config.features.arrays)
    packages = sorted({name for each in extractors for name in each.packages})
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise StageError(
            f'the stage features needs the package {" and ".join(absent)}, not installed here; run '
            "pip install '.[features]'"
        )
    for name in dict.fromkeys(each.weights for each in extractors if each.weights):
        with catalogue.published_in_message(name):
            files.fetch(config.features[name])  # at once, because the process below takes seconds
    named = {each.name: config.features[each.weights] for each in extractors if each.weights}
    if named:
        stats = tuple(contents.stat(Path(weights)) for weights in named.values())
        _check_weights(tuple(named.items()), stats)


@functools.cache  # the configs of all ablations have the same features
def _check_weights(named: Sequence[tuple[str, str]], stats: Sequence) -> None:
    with _process() as process:
        process.call(_load_all, named)


def _process() -> Process:
    return Process('features', 'fewer --config.data.workers')


def _load_all(named: Sequence[tuple[str, str]]) -> None:
    for name, weights in named:
        shards.load(name, weights)
