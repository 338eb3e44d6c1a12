"""Stages that prepare another data set's test questions for a trained model.

`config.evaluate.data` names the data set. The run's own detector, encoders and towers compute the
model's inputs, with the run's own settings. Only the videos of test questions are prepared, and
nothing is trained.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from amuse_jax import music_avqa
from amuse_jax.data import sources
from amuse_jax.data import stage as prepare
from amuse_jax.data.prepared import Prepared
from amuse_jax.regions import stage as rois
from amuse_jax.training import sharding
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.train import answering, leakage, predict
from amuse_jax.training.train import stage as train

SPLITS = ('test', music_avqa.REPHRASED)  # splits whose questions the evaluate stage answers


@dataclasses.dataclass(frozen=True)
class TestData:
    """Folders of the test questions and of everything that was computed from their videos.

    Attributes:
      prepare: folder of the records and questions.
      rois: folder of the regions.
      features: folder whose features/ holds the features of the universal encoder.
      encoded: folder of the frozen towers' tokens.
      labels: folder of sources.npy and rhythm.npy, which the example pages show.
      labels_from: where the labels come from, as text for the example pages.
    """

    prepare: Path
    rois: Path
    features: Path
    encoded: Path
    labels: Path
    labels_from: str

    def inputs(self, inputs: Mapping[str, Path]) -> dict[str, Path]:
        """Return the inputs of predict.predict: the test data, and the model of `inputs`."""
        return {
            'train': inputs['train'],
            'prepare': self.prepare,
            'rois': self.rois,
            'pretrain': self.features,
        }


def find_test_data(inputs: Mapping[str, Path]) -> TestData:
    """Return the folders of the other data set if `inputs` has them, else of the run's own."""
    if 'test_prepare' in inputs:
        features = inputs['test_features']
        return TestData(
            inputs['test_prepare'], inputs['test_rois'], features, features / 'encoded',
            features / 'features', 'predicted by the universal encoder',
        )  # fmt: skip
    return TestData(
        inputs['prepare'], inputs['rois'], inputs['pretrain'], inputs['train'] / 'encoded',
        inputs['annotate'], 'annotated',
    )  # fmt: skip


def test_splits(prepared: Path) -> list[str]:
    """Return 'test', and 'rephrased' if the prepare stage's folder has rephrased questions."""
    present = {row['split'] for row in Prepared(prepared).rows}
    return [split for split in SPLITS if split == 'test' or split in present]


def annotations(config: ConfigDict) -> str:
    """Return which annotation files the test questions come from, as in `data.annotations`."""
    return (config.evaluate.data if config.evaluate.data.root else config.data).annotations


def folder_name(config: ConfigDict) -> str:
    """Return the name of the other data set's folder in the workdir.

    Every combination of root, annotations and rephrased questions has its own folder, so that one
    data set never overwrites the files of another.
    """
    other = config.evaluate.data
    root = Path(other.root).resolve()
    identity = json.dumps([str(root), other.rephrased])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    name = re.sub(r'[^A-Za-z0-9_.-]+', '-', root.name)[:80]
    return f'on-{name}-{other.annotations}-{digest}'


def check_questions(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Run the stage test_questions: check for leaked questions before any video is read.

    A question is leaked if the model was trained or validated on it.

    Returns:
      'questions', the number of test questions, and 'seen', how many of them are leaked.

    Raises:
      StageError: too many are leaked (leakage.py), or an annotation file cannot be read.
    """
    data = _test_config(config).data
    annotations = music_avqa.read(Path(data.root), data.annotations, data.rephrased, ('test',))
    questions = annotations.questions['test']
    sources.record(folder, Path(data.root), data, {}, ('test',))  # no videos
    is_leaked = leakage.find_leaked(inputs['train'], questions)
    leakage.check(is_leaked, config.evaluate.leaked)
    return {'questions': len(questions), 'seen': int(is_leaked.sum())}


def compare_sources(
    config: ConfigDict, folder: Path, inputs: Mapping[str, Path]
) -> sources.Comparison | None:
    """Compare the data set's files with those that a stage has read; see sources.compare_sources.

    It serves test_questions, which reads the annotation files, and test_prepare.
    """
    return sources.compare_sources(_test_config(config), folder, {}, ('test',))


def read_videos(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Run the stage test_prepare, which is prepare.run for the test split alone."""
    return prepare.run(_test_config(config), folder, {}, ('test',))


def find_regions(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Run the stage test_rois, which is rois.run with the detector of the run's rois stage."""
    test_config = _test_config(config)
    test_config.rois.weights = str(inputs['rois'] / 'detector.pt')
    return rois.run(test_config, folder, {'prepare': inputs['test_prepare']})


def encode(config: ConfigDict, folder: Path, inputs: Mapping[str, Path]) -> dict:
    """Run the stage test_features: encode the videos with the run's encoders and frozen towers.

    The stage writes features/, as the pretrain stage does, and encoded/, as the train stage does if
    the towers are frozen.

    Returns:
      'videos', the number of videos.

    Raises:
      StageError: the config does not match the trained model.
    """
    reader = Prepared(inputs['test_prepare']).reader()
    structure, arrays = pretrain.load(config, inputs['pretrain'])
    mesh = sharding.mesh(config.mesh)
    store = pretrain.compile_encoder(structure, mesh)
    pretrain.store_features(config, reader, store, mesh, folder / 'features', arrays)
    test_inputs = {
        'prepare': inputs['test_prepare'],
        'rois': inputs['test_rois'],
        'pretrain': folder,
    }
    structure, params, frozen = predict.load_parts(
        config, test_inputs | {'train': inputs['train']}, mesh
    )
    model = structure.merge(params | frozen)
    if model.encoder is not None and train.towers_are_frozen(params):
        source = answering.BatchSource(config, test_inputs, model.streams, folder / 'encoded')
        train.encode(config, folder / 'encoded', source, structure, params | frozen)
    return {'videos': len(reader)}


def _test_config(config: ConfigDict) -> ConfigDict:
    """Return the run's config with the other data set's root, annotations and so on."""
    test_config = config.copy_and_resolve_references()
    test_config.data.update(config.evaluate.data)
    return test_config
