"""Another data set's test questions, made ready for a trained model: `config.evaluate.data`.

What the model takes of a video is made by the run's own detector, encoders and towers, with the
run's own settings. Only the videos of test questions are prepared; nothing is trained.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.data import stage as prepare
from amuse_jax.data.prepared import Prepared
from amuse_jax.regions import stage as rois
from amuse_jax.training import sharding
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering, leakage, predict
from amuse_jax.training.train import stage as train

SPLITS = ('test', music_avqa.REPHRASED)  # what is asked


@dataclasses.dataclass(frozen=True)
class Asked:
    """Where the asked questions and their videos are described; folders.

    Attributes:
      prepare: records and questions.
      rois: regions.
      features: the universal encoder's, in features/.
      encoded: the frozen towers' tokens.
      labels: sources.npy and rhythm.npy, for pictures.
      labels_from: where these come from.
    """

    prepare: Path
    rois: Path
    features: Path
    encoded: Path
    labels: Path
    labels_from: str

    def inputs(self, inputs: Mapping[str, Path]) -> dict[str, Path]:
        """What predict.predict takes, for the model of the run's inputs."""
        own = {'prepare': self.prepare, 'rois': self.rois, 'pretrain': self.features}
        return {'train': inputs['train']} | own


def asked(inputs: Mapping[str, Path]) -> Asked:
    """The other data set where its stages are among the inputs, else the run's own."""
    if 'test_prepare' in inputs:
        made = inputs['test_features']
        return Asked(
            inputs['test_prepare'], inputs['test_rois'], made, made / 'encoded',
            made / 'features', 'predicted by the universal encoder',
        )  # fmt: skip
    return Asked(
        inputs['prepare'], inputs['rois'], inputs['pretrain'], inputs['train'] / 'encoded',
        inputs['annotate'], 'annotated',
    )  # fmt: skip


def splits_of(prepared: Path) -> list[str]:
    """'test', and 'rephrased' where there are such questions."""
    there = {row['split'] for row in Prepared(prepared).rows}
    return [split for split in SPLITS if split == 'test' or split in there]


def annotations(config: ConfigDict) -> str:
    """Which annotation files the asked questions are from, as `data.annotations`."""
    return (config.evaluate.data if config.evaluate.data.root else config.data).annotations


def folder_name(config: ConfigDict) -> str:
    """The folder in the workdir of all that is about the other data set.

    Its name is one of its own for every root, annotations and rephrased questions, so that nothing
    of one data set makes room for another's.
    """
    other = config.evaluate.data
    root = Path(other.root).resolve()
    place = json.dumps([str(root), other.rephrased])
    mark = hashlib.sha256(place.encode()).hexdigest()[:8]
    name = re.sub(r'[^A-Za-z0-9_.-]+', '-', root.name)[:80]
    return f'on-{name}-{other.annotations}-{mark}'


def compare(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """The stage test_questions: whether the model knows the questions, before videos are read.

    Returns:
      {'questions', 'seen'}.

    Raises:
      StageError: it knows too many of them (seen.py), or an annotation file cannot be read.
    """
    data = _with_other(config).data
    found = music_avqa.read(Path(data.root), data.annotations, data.rephrased, ('test',))
    questions = found.questions['test']
    is_seen = leakage.among(inputs['train'], questions)
    leakage.check(is_seen, config.evaluate.leaked)
    return {'questions': len(questions), 'seen': int(is_seen.sum())}


def read_videos(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """The stage test_prepare; see prepare.run."""
    return prepare.run(_with_other(config), folder, {}, ('test',))


def find_regions(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """The stage test_rois: regions by the detector that the stage rois left; see rois.run."""
    other = _with_other(config)
    other.rois.weights = str(inputs['rois'] / 'detector.pt')
    return rois.run(other, folder, {'prepare': inputs['test_prepare']})


def encode(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """The stage test_features: what the run's frozen encoders and towers make of the videos.

    Leaves features/ as the pretrain stage does and, where the towers are frozen, encoded/ as the
    train stage does.

    Returns:
      {'videos'}.

    Raises:
      StageError: the config does not fit the trained model.
    """
    reader = Prepared(inputs['test_prepare']).reader()
    structure, arrays = pretrain.load(config, inputs['pretrain'])
    mesh = sharding.mesh(config.mesh)
    store = pretrain.encoding(structure, mesh)
    pretrain.store_features(config, reader, store, mesh, folder / 'features', arrays)
    here = {'prepare': inputs['test_prepare'], 'rois': inputs['test_rois'], 'pretrain': folder}
    structure, params, frozen = predict.load_parts(config, here | {'train': inputs['train']}, mesh)
    model = structure.merge(params | frozen)
    if model.encoder is not None and train.towers_are_frozen(params):
        source = answering.Source(config, here, model.streams, folder / 'encoded')
        train.encode(config, folder / 'encoded', source, structure, params | frozen)
    return {'videos': len(reader)}


def _with_other(config: ConfigDict) -> ConfigDict:
    """The run's config with the other data set's place."""
    other = config.copy_and_resolve_references()
    other.data.update(config.evaluate.data)
    return other
