"""Batches of videos x questions through Grain: shuffled, repeatable, resumable in the middle of an
epoch.

One item is a video with up to Q of its questions, so that what does not depend on the question is
computed once per video. A video with more questions makes several items. Every epoch, in training
as in evaluation, holds every question exactly once, unless it is told to take only a few of each
video; what fills up the last item and the last batch weighs nothing.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from amuse_jax.data import augment
from amuse_jax.data.question_table import QuestionTable
from amuse_jax.errors import StageError

Batch = dict[str, np.ndarray]

# Two threads read fastest on small machines, and leave the cores to the step on large ones; Grain's
# own default of 16 is slower on two cores than 2.
READING = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)

CONTENT = ('frames', 'log_mel')  # what a batch takes from a record
_READS: dict[int, tuple[int, float]] = {}  # thread -> (record, since when) of a read under way


@dataclasses.dataclass(frozen=True)
class Group:
    """One item of an epoch: the `part`-th slice of a video's questions.

    Attributes:
      record: index into videos.json.
      questions: all of the video's questions in the split, as indices into the table; () for
        padding.
      part: which slice of them.
    """

    record: int
    questions: tuple[int, ...]
    part: int


def groups_of(table: QuestionTable, split: str, size: int) -> list[Group]:
    """The items of one epoch over the split: every video, ceil(its questions / size) times."""
    by_record: dict[int, list[int]] = {}
    for index, question in enumerate(table.questions):
        if question.split == split:
            by_record.setdefault(int(table.records[index]), []).append(index)
    return [
        Group(record, tuple(questions), part)
        for record, questions in sorted(by_record.items())
        for part in range(-(-len(questions) // size))
    ]


@dataclasses.dataclass(frozen=True)
class QuestionBatches:
    """What a batch is made of; `epochs` and `once` make the batches.

    A batch holds, for V videos and Q questions: words, word_mask (V, Q, N); answers, question (V,
    Q) int32, `question` being the index into the table; weights (V, Q) float32, 0 for padding;
    record (V,) int32; and every array of `arrays` (V, ...) under its name. With a `reader` also
    frames (V, T, S, S, 3) uint8 and log_mel (V, T, F, M) dB.

    Attributes:
      table: the questions.
      split: train, val, test or rephrased.
      size: Q.
      videos: V.
      arrays: (records, T, ...) each, may be memory-mapped; `segment_mask` where time is shifted.
      reader: a RecordReader, where the batch needs frames and log-mels.
      rows: which of a batch's V rows are read here; None: all.
    """

    table: QuestionTable
    split: str
    size: int
    videos: int
    arrays: Mapping[str, np.ndarray]
    reader: Any = None
    rows: Sequence[int] | None = None

    def epochs(
        self,
        count: int,
        seed: int,
        parts: int = 0,
        augmentation: augment.Augmentation = augment.NONE,
    ) -> grain.MapDataset:
        """`count` shuffled epochs; its length is their number of batches.

        Args:
          count: how many.
          seed: of the order of the videos and of each one's questions.
          parts: most items of a video per epoch, so that an epoch asks it `parts * size` of its
            questions, drawn anew; 0: all.
          augmentation: how the videos are changed, drawn anew in every epoch.
        """
        items = self._items(parts)

        def fetch(index: int, group: Group) -> Batch:
            # Below a shuffle, Grain's index goes on counting from epoch to epoch.
            rng = np.random.default_rng((seed, index // len(items), group.record))
            item = self._fetch(group, rng.permutation(group.questions))
            return self._augmented(item, augmentation, rng)

        dataset = grain.MapDataset.source(items).map_with_index(fetch).shuffle(seed=seed)
        return batched(dataset, self.videos, self.rows).repeat(count)

    def once(self) -> grain.MapDataset:
        """The split in order, every question once."""
        dataset = grain.MapDataset.source(self._items())
        dataset = dataset.map(lambda group: self._fetch(group, group.questions))
        return batched(dataset, self.videos, self.rows)

    def _items(self, parts: int = 0) -> list[Group]:
        groups = groups_of(self.table, self.split, self.size)
        if not groups:
            raise StageError(f'the data set has no {self.split} question; expected at least one')
        if parts:
            groups = [group for group in groups if group.part < parts]
        return padded(groups, self.videos, Group(groups[0].record, (), 0))

    def _fetch(self, group: Group, order: Sequence[int]) -> Batch:
        chosen = order[group.part * self.size : (group.part + 1) * self.size]
        # Padding repeats a question rather than being empty: no softmax ever runs over nothing.
        indices = np.zeros(self.size, np.int32)
        indices[: len(chosen)] = chosen
        item = {
            **{name: array[indices] for name, array in self.table.plain._asdict().items()},
            'weights': (np.arange(self.size) < len(chosen)).astype(np.float32),
            'question': indices,
            'record': np.int32(group.record),
        }
        with noted(group.record):
            item |= {name: np.array(array[group.record]) for name, array in self.arrays.items()}
            if self.reader is not None:
                record = self.reader[group.record]
                item |= {name: record[name] for name in CONTENT}
        return item

    def _augmented(
        self, item: Batch, augmentation: augment.Augmentation, rng: np.random.Generator
    ) -> Batch:
        """The item changed as drawn; all of a video's items in an epoch draw alike."""
        if rng.random() < augmentation.mirror:
            item = self._mirrored(item)
        gain_db = augmentation.gain_db * rng.uniform(-1, 1)
        if gain_db and 'log_mel' in item:
            item['log_mel'] = augment.amplified(item['log_mel'], gain_db)
        if rng.random() < augmentation.time_shift:
            item = self._shifted(item, rng)
        return item

    def _mirrored(self, item: Batch) -> Batch:
        """With questions, answers, boxes and frames of the mirrored video; features made beforehand
        stay, which are averages over the picture or over a region."""
        encoded = self.table.mirrored._asdict()
        item = item | {name: array[item['question']] for name, array in encoded.items()}
        for name, seen in (('boxes', augment.mirrored_boxes), ('frames', augment.mirrored_frames)):
            if name in item:
                item[name] = seen(item[name])
        return item

    def _shifted(self, item: Batch, rng: np.random.Generator) -> Batch:
        """With every segment that exists some places later, unless a question asks about order.

        The predicted change of rhythm goes with its segment, whatever follows that one now.
        """
        exists = item['segment_mask']
        by = int(rng.integers(1, max(exists.sum(), 2)))
        asked = item['question'][item['weights'] > 0]
        if self.table.is_about_order[asked].any():
            return item
        names = [name for name in (*self.arrays, *CONTENT) if name in item]
        return item | {name: augment.shifted(item[name], exists, by) for name in names}


def segment_runs(
    reader: Any,
    labels: Mapping[str, np.ndarray],
    records: Sequence[int],
    *,
    videos: int,
    segments: int,
    epochs: int,
    seed: int,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Shuffled batches of random runs of consecutive segments, for pretraining (3.2).

    Half of the videos are mirrored, which changes neither rhythm nor sources.

    Args:
      reader: RecordReader.
      labels: 'rhythm' (records, T) and 'sources' (records, T, 22).
      records: which records.
      videos: V, videos per batch.
      segments: t, length of a run.
      epochs: how often every record comes.
      seed: of order, runs and mirrors.
      rows: which of a batch's V rows are read here; None: all.

    Returns:
      Batches of frames (V, t, S, S, 3) uint8, log_mel (V, t, F, M) dB, rhythm (V, t), sources (V,
      t, 22), source_weights (V, t): 1 where the segment exists; rhythm_weights (V, t): 1 where the
      next segment, which a rhythm label compares with (Eq. 6), is in the run too or there is none;
      record (V,).
    """

    def fetch(item: tuple[int, float], rng: np.random.Generator) -> Batch:
        whole = _read_segments(reader, labels, *item)
        total = len(whole['rhythm'])
        start = int(rng.integers(0, total - segments + 1))
        record = whole.pop('record')
        run = {name: array[start : start + segments] for name, array in whole.items()}
        run['rhythm_weights'] = run['source_weights'].copy()
        if start + segments < total:
            run['rhythm_weights'][-1] = 0
        if rng.random() < 0.5:
            run['frames'] = augment.mirrored_frames(run['frames'])
        return run | {'record': record}

    dataset = grain.MapDataset.source(_weighted(records, videos)).random_map(fetch, seed=seed)
    return batched(dataset.shuffle(seed=seed), videos, rows).repeat(epochs)


def stored_videos(
    arrays: Mapping[str, np.ndarray],
    records: Sequence[int],
    videos: int,
    epochs: int,
    seed: int,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Shuffled batches of rows of `arrays`, which hold segment_mask (records, T); with weights as
    segment_runs', and `rows` as there."""

    def fetch(item: tuple[int, float]) -> Batch:
        index, weight = item
        with noted(index):
            item = {name: np.array(array[index]) for name, array in arrays.items()}
        weights = np.float32(weight) * item['segment_mask'].astype(np.float32)
        weights = {'source_weights': weights, 'rhythm_weights': weights}
        return item | weights | {'record': np.int32(index)}

    dataset = grain.MapDataset.source(_weighted(records, videos)).map(fetch)
    return batched(dataset.shuffle(seed=seed), videos, rows).repeat(epochs)


def whole_videos(
    reader: Any,
    labels: Mapping[str, np.ndarray],
    records: Sequence[int],
    videos: int,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """The records in order, all their segments, as batches like segment_runs'; padding weighs
    nothing."""

    def fetch(item: tuple[int, float]) -> Batch:
        whole = _read_segments(reader, labels, *item)
        return whole | {'rhythm_weights': whole['source_weights']}

    return batched(grain.MapDataset.source(_weighted(records, videos)).map(fetch), videos, rows)


def batched(
    items: grain.MapDataset, videos: int, rows: Sequence[int] | None = None
) -> grain.MapDataset:
    """Batches of `videos` items; or, of every such batch, only the items at the places `rows`.

    So hosts that take different rows read different records, and what they read together is the
    same, in the same order, for any number of hosts. So is the state of the iterator.

    Args:
      items: their number is a multiple of `videos`.
      videos: V.
      rows: in order; None: all.
    """
    if rows is None or len(rows) == videos:
        return items.batch(videos)
    return grain.MapDataset.mix([items[row::videos] for row in rows]).batch(len(rows))


def iterate(dataset: grain.MapDataset) -> Iterator[Batch]:
    """A prefetching iterator whose state can be saved (`get_state`) and set."""
    return iter(dataset.to_iter_dataset(READING))


def reads() -> list[tuple[int, float]]:
    """Record and seconds so far of every read under way."""
    return [(record, time.monotonic() - since) for record, since in list(_READS.values())]


@contextlib.contextmanager
def noted(record: int) -> Iterator[None]:
    """Inside, this thread reads a record; `reads` tells."""
    _READS[threading.get_ident()] = int(record), time.monotonic()
    try:
        yield
    finally:
        del _READS[threading.get_ident()]


def padded(items: list, size: int, filler: Any) -> list:
    """`items` with as many fillers behind them as make the length a multiple of `size`."""
    return items + [filler] * (-len(items) % size)


def _weighted(records: Sequence[int], videos: int) -> list[tuple[int, float]]:
    """Records with weight 1, and as padding the first of them with weight 0."""
    items = [(int(record), 1.0) for record in records]
    return padded(items, videos, (int(records[0]), 0.0))


def _read_segments(
    reader: Any, labels: Mapping[str, np.ndarray], index: int, weight: float
) -> Batch:
    """All segments of a record with their labels; segments that do not exist weigh nothing."""
    with noted(index):
        content = reader[index]
    exists = content['frame_mask'] | content['audio_mask']
    return {
        'frames': content['frames'],
        'log_mel': content['log_mel'],
        **{name: np.array(array[index], np.float32) for name, array in labels.items()},
        'segment_mask': exists,
        'source_weights': np.float32(weight) * exists.astype(np.float32),
        'record': np.int32(index),
    }
