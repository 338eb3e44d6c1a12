"""The batches of a peer: questions, what the videos give, and frames of other videos."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import grain
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from amuse_jax.data import pipeline, question_table
from amuse_jax.data.pipeline import Batch
from amuse_jax.data.prepared import Prepared
from amuse_jax.data.records import RecordReader
from amuse_jax.data.tokenizer import QuestionTokenizer
from amuse_jax.data.train_words import TrainWords
from amuse_jax.errors import StageError
from amuse_jax.training import sharding, stored


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Where the inputs of a peer come from.

    Attributes:
      per_segment: input -> array of the stage features, of which each segment gets one row.
      per_second: the same, with all rows.
      per_question: input -> array of the stage features with a row per distinct question.
      records: input -> array of the records.
      negative: the input whose values of other videos the peer also sees in training; '' for none.
    """

    per_segment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    per_second: Mapping[str, str] = dataclasses.field(default_factory=dict)
    per_question: Mapping[str, str] = dataclasses.field(default_factory=dict)
    records: Mapping[str, str] = dataclasses.field(default_factory=dict)
    negative: str = ''

    @property
    def per_video(self) -> dict[str, str]:
        """Input -> array of the stage features with a row per video."""
        return {**self.per_segment, **self.per_second}

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of all arrays of the stage features."""
        return *self.per_video.values(), *self.per_question.values()


_CLIP = {'audio': 'vggish', 'frames': 'clip_frames'}
_WORDS = {'question': 'clip_question', 'words': 'clip_words'}
_LAVISH = Inputs({'audio': 'fbank'}, records={'frames': 'frames'}, negative='frames')
INPUTS = {
    'avst': Inputs({'audio': 'vggish', 'visual': 'resnet18'}, negative='visual'),
    'pstp_released': Inputs(per_second=_CLIP, per_question=_WORDS),
    'pstp_paper': Inputs(per_second=_CLIP | {'patches': 'clip_patches'}, per_question=_WORDS),
    'lavish': _LAVISH,
    'last': _LAVISH,
    'last_att': dataclasses.replace(_LAVISH, per_segment={'audio': 'fbank', 'semantic': 'ast'}),
    'dgsct': Inputs({'audio': 'log_mel_seconds'}, records={'frames': 'frames'}, negative='frames'),
    'lstta': Inputs(records={'frames': 'frames', 'audio': 'log_mel'}),
}


def inputs_of(config: ConfigDict) -> Inputs:
    """Return where the inputs of the config's peer come from."""
    found, peer = INPUTS[config.peer.name], config.peer
    if peer.inputs == 'towers' and peer.name == 'dgsct':
        # A segment's own log-mel: HTS-AT resizes any length.
        records = {'frames': 'frames', 'audio': 'log_mel'}
        found = dataclasses.replace(found, per_segment={}, records=records)
    if peer.reads_with_lstm:
        found = dataclasses.replace(found, per_question={'words': 'clip_words'})
    return found


@dataclasses.dataclass(frozen=True)
class PeerBatches:
    """Makes the batches of questions for training and prediction.

    Attributes:
      config: the run's config.
      inputs: the folders of prepare, and of features or stand_ins, by stage.
    """

    config: ConfigDict
    inputs: Mapping[str, Path]

    @property
    def mesh(self) -> Mesh:
        """The device mesh of the config."""
        return sharding.mesh(self.config.mesh)

    @functools.cached_property
    def wanted(self) -> Inputs:
        """Where the peer's inputs come from."""
        return inputs_of(self.config)

    @functools.cached_property
    def tokenizer(self) -> TrainWords | QuestionTokenizer:
        """What turns questions into numbers: LSTTA has a text tower, all others train words."""
        if self.config.peer.name == 'lstta':
            return QuestionTokenizer(self.config.model.text)
        return TrainWords(Prepared(self.inputs['prepare']).questions('train'))

    @property
    def vocabulary(self) -> int:
        """The number of words that the peer can read."""
        tokenizer = self.tokenizer
        return len(tokenizer) if isinstance(tokenizer, TrainWords) else tokenizer.vocab_size

    @functools.cached_property
    def table(self) -> question_table.QuestionTable:
        """The prepared questions."""
        return question_table.read(self.inputs['prepare'], self.tokenizer)

    @functools.cached_property
    def reader(self) -> RecordReader:
        """A reader of the prepared records."""
        return Prepared(self.inputs['prepare']).reader()

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The peer's inputs with a row per video, memory-mapped.

        Raises:
          StageError: an array is missing or does not match the records.
        """
        arrays = self._read(self.wanted.per_video)
        for name, array in arrays.items():
            if len(array) != len(self.reader):
                raise StageError(
                    f'the array {self.wanted.per_video[name]} has {len(array)} rows for '
                    f'{len(self.reader)} records; run the stage {self._source} again'
                )
        segments = self.config.data.segments
        for name in self.wanted.per_segment:
            # One second in six of a minute, as the released loaders take them.
            arrays[name] = arrays[name][:, :: arrays[name].shape[1] // segments]
        return arrays

    @functools.cached_property
    def question_rows(self) -> np.ndarray:
        """The row of each question of the table in the arrays per question, (n,) int.

        Raises:
          StageError: a question is not among those of the stage features.
        """
        path = self.inputs[self._source] / 'questions.json'
        rows = {text: row for row, text in enumerate(json.loads(path.read_text('utf-8')))}
        unknown = [q.text for q in self.table.questions if q.text not in rows]
        if unknown:
            raise StageError(
                f'{path} lacks {unknown[0]!r} and {len(unknown) - 1} other questions; run the '
                f'stage {self._source} again'
            )
        return np.array([rows[question.text] for question in self.table.questions])

    @property
    def _source(self) -> str:
        """The stage that the arrays come from."""
        return 'stand_ins' if self.config.peer.inputs == 'towers' else 'features'

    def _read(self, names: Mapping[str, str]) -> dict[str, np.ndarray]:
        found = stored.read(self.inputs[self._source], names.values()) if names else {}
        return {name: found[array] for name, array in names.items()}

    def records_of(self, split: str) -> list[int]:
        """Return the records that have questions of a split, in order."""
        return sorted(Prepared(self.inputs['prepare']).records_of(split))

    def train(self) -> grain.MapDataset:
        """Return the batches of all epochs of training.

        They are those of pipeline.QuestionBatches with the peer's inputs, and with frames of other
        videos where the peer wants them.
        """
        peer = self.config.peer
        plain = self._plain('train', peer.batch_size, peer.questions)
        batches = plain.epochs(peer.epochs, self.config.seed).map(self.complete)
        if not self.wanted.negative:
            return batches
        others = self._others()
        return batches.map_with_index(
            lambda index, batch: batch | {'negative': others.of_batch(index, batch)}
        )

    def pairs(self) -> grain.MapDataset:
        """Return the batches of the grounding epochs: sounds, their own frames, and others.

        Each is a dict of `audio` (P, d), `visual` and `negative` (P, h, w, d), weights (P,), which
        are 0 for padding, and record (P,). An epoch has every segment of every train video once.
        """
        grounding, others = self.config.peer.grounding, self._others()
        items = [
            (record, segment, 1.0)
            for record in self.records_of('train')
            for segment in range(self.config.data.segments)
        ]
        items = pipeline.pad_to_multiple(items, grounding.batch_size, (*items[0][:2], 0.0))

        def fetch(index: int, item: tuple[int, int, float]) -> Batch:
            record, segment, weight = item
            with pipeline.track_read(record):
                own = {name: np.array(x[record, segment]) for name, x in self.arrays.items()}
            return own | {
                'negative': others.of_video((index, segment), record, 1)[0],
                'weights': np.float32(weight),
                'record': np.int32(record),
            }

        # Below a shuffle, Grain's index goes on counting from epoch to epoch.
        dataset = grain.MapDataset.source(items).map_with_index(fetch).shuffle(self.config.seed)
        rows = sharding.local_rows(grounding.batch_size, self.mesh)
        return pipeline.batched(dataset, grounding.batch_size, rows).repeat(grounding.epochs)

    def _others(self) -> 'Others':
        return Others(
            np.array(self.records_of('train')),
            tuple(video['video_id'] for video in self.reader.videos),
            self.config.data.segments,
            self.config.seed,
            self.look_up,
        )

    def once(self, split: str, videos: int) -> grain.MapDataset:
        """Return one pass over a split in order; frames of other videos change no answer."""
        return self._plain(split, videos, self.config.peer.questions).once().map(self.complete)

    def _plain(self, split: str, videos: int, questions: int) -> pipeline.QuestionBatches:
        return pipeline.QuestionBatches(
            self.table,
            split,
            questions,
            videos,
            self.arrays,
            self.reader if self.wanted.records else None,
            sharding.local_rows(videos, self.mesh),
        )

    def complete(self, batch: Batch) -> Batch:
        """Give the records' arrays their names as inputs, and add the arrays per question."""
        wanted, batch = self.wanted, dict(batch)
        if wanted.records:
            given = {name: batch.pop(name) for name in pipeline.RECORD_ARRAYS}
            batch |= {name: given[array] for name, array in wanted.records.items()}
        for name, array in self._per_question.items():
            batch[f'{name}_vectors'] = array[self.question_rows[batch['question']]]
        return batch

    @functools.cached_property
    def _per_question(self) -> dict[str, np.ndarray]:
        return self._read(self.wanted.per_question)

    def look_up(self, record: int, segment: int) -> np.ndarray:
        """Return a record's frame, or its map, of a segment."""
        name = self.wanted.negative
        if name in self.arrays:
            return self.arrays[name][record, segment]
        return self.reader[record][self.wanted.records[name]][segment]


@dataclasses.dataclass(frozen=True)
class Others:
    """Draws frames, or their maps, of other videos: one for each segment, each time anew.

    The released loaders draw from all 60 frames of a video, here it is from those of its segments,
    which are the ones that are stored. DG-SCT's loader can by mistake draw the video itself; here
    no video is its own negative.

    Attributes:
      records: the records to draw from.
      video_ids: the video of every record; a video with two sounds has two records.
      segments: number of segments of a record.
      seed: seed of the draws.
      look_up: (record, segment) -> the frame or the map.

    Raises:
      StageError: there is only one video.
    """

    records: np.ndarray
    video_ids: tuple[str, ...]
    segments: int
    seed: int
    look_up: Callable[[int, int], np.ndarray]

    def __post_init__(self):
        if len({self.video_ids[record] for record in self.records}) < 2:
            raise StageError(
                'only one video has train questions; training needs frames of another one'
            )

    def of_batch(self, index: int, batch: Batch) -> np.ndarray:
        """Return frames of other videos for each video of the batch of this index: (V, T, ...).

        They depend on the row, and not on the host that reads it.
        """
        rows = zip(batch['record'].tolist(), batch['question'][:, 0].tolist())
        return np.stack(
            [self.of_video((index, question), record, self.segments) for record, question in rows]
        )

    def of_video(self, key: tuple[int, ...], record: int, count: int) -> np.ndarray:
        """Return `count` frames of videos other than `record`, drawn by `key`: (count, ...)."""
        with pipeline.track_read(record):
            return np.stack([self.look_up(*frame) for frame in self.draw(key, record, count)])

    def draw(self, key: tuple[int, ...], record: int, count: int) -> list[tuple[int, int]]:
        """Return a record and a segment for each of `count` frames; see `of_video`."""
        rng, drawn = np.random.default_rng((self.seed, *key, record)), []
        while len(drawn) < count:
            other = int(self.records[rng.integers(len(self.records))])
            if self.video_ids[other] != self.video_ids[record]:
                drawn.append((other, int(rng.integers(self.segments))))
        return drawn
