"""Builds Amuse and its batches from a config, and computes its inputs, loss and answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amuse_jax.data import pipeline, question_table
from amuse_jax.data.prepared import Prepared
from amuse_jax.data.records import RecordReader
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.errors import StageError
from amuse_jax.models.amuse import Amuse, AmuseConfig, AmuseInputs, AmuseOutput, Phrases
from amuse_jax.models.interactive_encoder import QuestionFree
from amuse_jax.pretrained import towers
from amuse_jax.regions import stage as regions
from amuse_jax.training import questions, sharding, stored
from amuse_jax.training.pretrain import mel_statistics
from amuse_jax.training.pretrain import stage as pretrain
from amuse_jax.training.state import Arrays
from amuse_jax.training.token_cache import TokenCache

METRICS = ('loss', 'accuracy')
TOWERS = ('encoder.visual.', 'encoder.audio.')
QUESTION_FREE = ('front_visual', 'front_audio')
CLOSED = ('closed_visual', 'closed_audio')

# Stream made of stored features -> the names of its arrays in the pretrain stage's features/.
FEATURES = {
    'rhythm_visual': ('rhythm_visual', 'rhythm'),
    'rhythm_audio': ('rhythm_audio', 'rhythm'),
    'source_visual': ('source_visual', 'sources'),
    'source_audio': ('source_audio', 'sources'),
}
REGIONS = ('boxes', 'classes', 'scores', 'features')


def build(config: ConfigDict, rois: Path, rngs: nnx.Rngs) -> Amuse:
    """Return the config's Amuse with random weights, for the detector classes of the rois stage."""
    class_names = regions.class_names(rois)
    phrases = Phrases.from_settings(QuestionTokenizer(config.model.text), class_names)
    return Amuse(AmuseConfig.from_settings(config), phrases, rngs=rngs)


def init_towers(config: ConfigDict, folder: Path, arrays: Arrays) -> Arrays:
    """Initialise Amuse's towers from the pretrained source encoder and `config.checkpoints`.

    Args:
      config: if `train.towers_from` is 'sources', the visual and audio towers are copies of the
        source encoder's towers. If it is '', they are loaded from the named checkpoints, and only
        the statistics of the audio tower's input norm, which belong to the data set, are copied.
      folder: the folder of the pretrain stage.
      arrays: Amuse's arrays by name.

    Returns:
      The arrays with those of the towers replaced.
    """
    text = 'encoder.text.' if any(name.startswith(TOWERS) for name in arrays) else 'lone_text.'
    loaded = {text + name: array for name, array in towers.load(config, 'text').items()}
    if text == 'lone_text.':
        return arrays | loaded
    for part in () if config.train.towers_from == 'sources' else ('visual', 'audio'):
        tower = towers.load(config, part)
        loaded |= {f'encoder.{part}.{name}': array for name, array in tower.items()}
    copied = {
        f'encoder.{part}.{name}': array
        for part, tower in pretrain.source_towers(config, folder).items()
        for name, array in tower.items()
        if config.train.towers_from == 'sources' or name.endswith(mel_statistics.ARRAYS)
    }
    return arrays | loaded | copied


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """Makes the batches of questions for training and prediction.

    Attributes:
      config: the config of the run.
      inputs: the folders of the stages prepare, rois and pretrain, by name.
      streams: the model's streams.
      encoded: the folder with the frozen towers' tokens; None: batches contain frames and log-mels.
    """

    config: ConfigDict
    inputs: Mapping[str, Path]
    streams: tuple[str, ...]
    encoded: Path | None

    @property
    def mesh(self) -> Mesh:
        """The device mesh of the config."""
        return sharding.mesh(self.config.mesh)

    def table(self) -> question_table.QuestionTable:
        """Read the prepared questions as a table."""
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
        tokens: TokenCache | None = None,
    ) -> pipeline.QuestionBatches:
        """Return the batches of a split.

        Args:
          table: the questions of all splits.
          split: train, val, test or rephrased.
          videos: number of videos in a batch.
          is_open: whether the adapters are open; it decides which stored tokens the batches hold.
          questions: number of questions for each video in a batch; 0: train.questions.
          tokens: the stored tokens, if the batches of several splits share them; None: the split
            has its own.

        Raises:
          StageError: an array is missing or does not match the records, or the devices cannot
            divide a batch evenly.
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
                tokens = tokens or self.tokens(table, (split,), is_open=is_open)
            else:
                reader = self.reader()
        records = len(Prepared(self.inputs['prepare']).videos)
        for name, array in (arrays | (tokens.arrays if tokens else {})).items():
            if len(array) != records:
                raise StageError(
                    f'{name}.npy has {len(array)} rows for {records} records; run the stages rois '
                    'and pretrain again'
                )
        return pipeline.QuestionBatches(
            table,
            split,
            questions or self.config.train.questions,
            videos,
            arrays,
            reader,
            sharding.local_rows(videos, self.mesh),
            tokens,
        )

    def tokens(
        self, table: question_table.QuestionTable, splits: Sequence[str], *, is_open: bool
    ) -> TokenCache | None:
        """Return the stored tokens of the videos in some splits, on the disk.

        Args:
          table: the questions of all splits.
          splits: train, val, test or rephrased.
          is_open: whether the adapters are open; it decides which tokens.

        Returns:
          The tokens, or None if batches contain no tokens.

        Raises:
          StageError: an array is missing.
        """
        if not self.encoded or 'visual' not in self.streams:
            return None
        arrays = stored.read(self.encoded, QUESTION_FREE if is_open else CLOSED)
        records = [
            int(record)
            for record, question in zip(table.records, table.questions)
            if question.split in splits
        ]
        return TokenCache(arrays, records, self.mesh, self.config.train.cache)

    def reader(self) -> RecordReader:
        """Return a reader of the prepared records."""
        return Prepared(self.inputs['prepare']).reader()


def prepare_inputs(model: Amuse, batch: Mapping[str, jax.Array], *, is_open: bool) -> AmuseInputs:
    """Convert a batch to the model's inputs; run the towers if the batch holds frames, not tokens.

    Args:
      model: Amuse.
      batch: a batch of pipeline.QuestionBatches.
      is_open: whether the adapters are open; if not, the inputs are the towers' pooled streams.
    """
    names = {field.name for field in dataclasses.fields(AmuseInputs)}
    given = {
        name: questions.half_to_float32(array) for name, array in batch.items() if name in names
    }
    if model.encoder is None:
        return AmuseInputs(**given)
    dtype = jnp.dtype(model.config.dtype)
    if 'frames' in batch:
        question_free = model.encoder.question_free(batch['frames'], batch['log_mel'])
        if not is_open:
            return AmuseInputs(closed=model.encoder.closed(question_free), **given)
        return AmuseInputs(question_free=question_free, **given)
    if is_open:
        tokens = QuestionFree(*(batch[name].astype(dtype) for name in QUESTION_FREE))
        return AmuseInputs(question_free=tokens, **given)
    return AmuseInputs(closed=tuple(batch[name].astype(dtype) for name in CLOSED), **given)


def loss(model: Amuse, batch: Mapping[str, jax.Array], rngs: nnx.Rngs | None, *, is_open: bool):
    """Compute the cross-entropy over the batch's questions (4.1); see step.Loss."""
    logits = model(prepare_inputs(model, batch, is_open=is_open), rngs).logits
    sums = questions.metric_sums(logits, batch)
    total, count = sums['loss']
    return total / jnp.maximum(count, 1), sums


def answer(
    model: Amuse, batch: Mapping[str, jax.Array], *, is_open: bool
) -> tuple[Arrays, AmuseOutput]:
    """Answer the batch's questions and compute the metrics; see step.Evaluation."""
    output = model(prepare_inputs(model, batch, is_open=is_open))
    return questions.metric_sums(output.logits, batch), output
