"""What Amuse trains and answers on: the model of a config, its batches, and its loss."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amuse_jax.data import pipeline, question_table
from amuse_jax.data.prepared import Prepared
from amuse_jax.data.records import RecordReader
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.models.amuse import Amuse, AmuseConfig, AmuseInputs, AmuseOutput, Phrases
from amuse_jax.models.interactive_encoder import Front
from amuse_jax.pretrained import towers
from amuse_jax.regions import stage as regions
from amuse_jax.training import sharding, stored
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.state import Arrays

METRICS = ('loss', 'accuracy')
TOWERS = ('encoder.visual.', 'encoder.audio.')
FRONT = ('front_visual', 'front_audio')
CLOSED = ('closed_visual', 'closed_audio')

# What each stream is made of, beside the interactive encoder's two.
FEATURES = {
    'rhythm_visual': ('rhythm_visual', 'rhythm'),
    'rhythm_audio': ('rhythm_audio', 'rhythm'),
    'source_visual': ('source_visual', 'sources'),
    'source_audio': ('source_audio', 'sources'),
}
REGIONS = ('boxes', 'classes', 'scores', 'features')


def build(config: ConfigDict, rois: Path, rngs: nnx.Rngs) -> Amuse:
    """The config's Amuse with random weights, for the detector classes of the rois stage."""
    class_names = regions.class_names(rois)
    phrases = Phrases.from_settings(QuestionTokenizer(config.model.text), class_names)
    return Amuse(AmuseConfig.from_settings(config), phrases, rngs=rngs)


def start_towers(config: ConfigDict, folder: Path, arrays: Arrays) -> Arrays:
    """Gives Amuse's towers what pretraining and `config.checkpoints` know.

    Args:
      config: `train.towers_from` = 'sources' copies the source encoder's towers whole; '' only the
        statistics of its audio tower's input norm, which are those of the data, and the rest from
        the checkpoints that are named.
      folder: of the pretrain stage.
      arrays: of Amuse.

    Returns:
      The arrays with the towers' replaced.
    """
    text = 'encoder.text.' if any(name.startswith(TOWERS) for name in arrays) else 'lone_text.'
    loaded = {text + name: array for name, array in towers.load(config, 'text').items()}
    if text == 'lone_text.':
        return arrays | loaded
    for part in () if config.train.towers_from == 'sources' else ('visual', 'audio'):
        tower = towers.load(config, part)
        loaded |= {f'encoder.{part}.{name}': array for name, array in tower.items()}
    _, pretrained = pretrain.load(config, folder)
    copied = {
        # 0: rhythm, 1: source
        name: np.asarray(pretrained[name.replace('encoder.', 'pairs.', 1)])[1]
        for name in arrays
        if name.startswith(TOWERS)
        and (config.train.towers_from == 'sources' or name.endswith(pretrain.STATISTICS))
    }
    return arrays | loaded | copied


@dataclasses.dataclass(frozen=True)
class Source:
    """Where batches come from; one per run.

    Attributes:
      config: the run's.
      inputs: the folders of prepare, rois and pretrain.
      streams: of the model.
      encoded: folder of the frozen towers' tokens; None: batches carry frames and log-mels.
    """

    config: ConfigDict
    inputs: Mapping[str, Path]
    streams: tuple[str, ...]
    encoded: Path | None

    @property
    def mesh(self) -> Mesh:
        return sharding.mesh(self.config.mesh)

    def table(self) -> question_table.QuestionTable:
        tokenizer = QuestionTokenizer(self.config.model.text)
        return question_table.read(self.inputs['prepare'], tokenizer)

    def batches(
        self,
        table: question_table.QuestionTable,
        split: str,
        videos: int,
        *,
        is_open: bool,
        questions: int = 0,
    ) -> pipeline.QuestionBatches:
        """Batches for adapters open or closed, of `questions` per video (0: train.questions).

        Raises:
          StageError: an array is missing, or does not fit the records; or the devices cannot share
            a batch evenly.
        """
        features = {name for stream in self.streams for name in FEATURES.get(stream, ())} | {
            'segment_mask'
        }
        arrays = stored.read(self.inputs['pretrain'] / 'features', sorted(features))
        if 'regions' in self.streams:
            arrays |= stored.read(self.inputs['rois'], REGIONS)
        reader = None
        if 'visual' in self.streams:
            if self.encoded:
                arrays |= stored.read(self.encoded, FRONT if is_open else CLOSED)
            else:
                reader = self.reader()
        records = len(Prepared(self.inputs['prepare']).videos)
        for name, array in arrays.items():
            if len(array) != records:
                raise StageError(
                    f'{name}.npy has {len(array)} rows for {records} records; run the stages rois '
                    'and pretrain again'
                )
        rows = sharding.rows(videos, self.mesh)
        return pipeline.QuestionBatches(
            table, split, questions or self.config.train.questions, videos, arrays, reader, rows
        )

    def reader(self) -> RecordReader:
        return Prepared(self.inputs['prepare']).reader()


def inputs_of(model: Amuse, batch: Mapping[str, jax.Array], *, is_open: bool) -> AmuseInputs:
    """A batch as the model takes it; towers that were not run beforehand run here.

    Args:
      model: Amuse.
      batch: of pipeline.QuestionBatches.
      is_open: whether the adapters take part; else the towers' pooled streams go in as they are.
    """
    names = {field.name for field in dataclasses.fields(AmuseInputs)}
    given = {name: _full(array) for name, array in batch.items() if name in names}
    if model.encoder is None:
        return AmuseInputs(**given)
    dtype = jnp.dtype(model.config.dtype)
    if 'frames' in batch:
        front = model.encoder.front(batch['frames'], batch['log_mel'])
        if not is_open:
            return AmuseInputs(closed=model.encoder.closed(front), **given)
        return AmuseInputs(front=front, **given)
    if is_open:
        return AmuseInputs(front=Front(*(batch[name].astype(dtype) for name in FRONT)), **given)
    return AmuseInputs(closed=tuple(batch[name].astype(dtype) for name in CLOSED), **given)


def loss(model: Amuse, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None, *, is_open: bool):
    """Cross-entropy over the batch's questions (4.1); see step.Loss."""
    logits = model(inputs_of(model, batch, is_open=is_open), rngs).logits
    sums = _sums(logits, batch)
    total, count = sums['loss']
    return total / jnp.maximum(count, 1), sums


def answer(
    model: Amuse, batch: Mapping[str, jax.Array], *, is_open: bool
) -> tuple[Arrays, AmuseOutput]:
    """The batch's questions answered; see step.Evaluation."""
    output = model(inputs_of(model, batch, is_open=is_open))
    return _sums(output.logits, batch), output


def _sums(logits: jax.Array, batch: Mapping[str, jax.Array]) -> Arrays:
    weights, answers = batch['weights'], batch['answers']
    log_likelihood = jnp.take_along_axis(
        jax.nn.log_softmax(logits.astype(jnp.float32)), answers[..., None], -1
    )[..., 0]
    total, count = -(weights * log_likelihood).sum(), weights.sum()
    right = (weights * (logits.argmax(-1) == answers)).sum()
    return {'loss': jnp.stack([total, count]), 'accuracy': jnp.stack([right, count])}


def _full(array: jax.Array) -> jax.Array:
    """Stored half floats in float32."""
    return array.astype(jnp.float32) if array.dtype == jnp.float16 else array
