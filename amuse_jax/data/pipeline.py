"""Batches of videos and questions, read with Grain: shuffled, repeatable, resumable in mid-epoch.

One item is a video with up to Q of its questions, so work that does not depend on the question is
done once per video. A video with more than Q questions makes several items. Every epoch, in
training and in evaluation, contains every question exactly once, unless it is limited to a few
questions per video. Padding fills the last item of a video and the last batch; it has weight 0.
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
from amuse_jax.data.records import segment_mask
from amuse_jax.errors import StageError

Batch = dict[str, np.ndarray]

# Two threads read fastest on small machines, and leave the cores to the step on large ones. On two
# cores they are faster than Grain's default of 16.
READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)

RECORD_ARRAYS = ('frames', 'log_mel')  # the arrays that a batch takes from a record

# Thread -> (record, start time) of every read in progress.
_READS: dict[int, tuple[int, float]] = {}


@dataclasses.dataclass(frozen=True)
class Group:
    """One item of an epoch: a video and one slice of its questions.

    Attributes:
      record: index of the video in videos.json.
      questions: all of the video's questions in the split, as indices into the question table; ()
        for padding.
      part: number of the slice.
    """

    record: int
    questions: tuple[int, ...]
    part: int


def group_questions(table: QuestionTable, split: str, size: int) -> list[Group]:
    """Return the items of one epoch: each video appears ceil(number of its questions / size) times.

    Args:
      table: all questions.
      split: the split whose questions to take.
      size: Q, questions per item.
    """
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
    """The source of a split's batches; `epochs` and `once` make them.

    A batch of V videos and Q questions is a dict of
      words, word_mask: (V, Q, N);
      answers: (V, Q) int32, index into vocabulary.ANSWERS;
      question: (V, Q) int32, index into the question table;
      weights: (V, Q) float32, 0 for padding;
      record: (V,) int32, index into videos.json;
      frames (V, T, S, S, 3) uint8 and log_mel (V, T, F, M) dB, if there is a `reader`;
      every array of `arrays`: (V, ...), under its name.

    Attributes:
      table: all questions.
      split: train, val, test or rephrased.
      size: Q, questions per video.
      videos: V, videos per batch.
      arrays: (records, T, ...) arrays to add to the batch; they may be memory-mapped. A shift in
        time needs `segment_mask` among them.
      reader: a RecordReader, or None if the batch needs neither frames nor log-mels.
      rows: the rows of each batch that this host reads; None for all V rows.
      tokens: a TokenCache, which adds stored tokens to whole batches; None: there are none.
    """

    table: QuestionTable
    split: str
    size: int
    videos: int
    arrays: Mapping[str, np.ndarray]
    reader: Any = None
    rows: Sequence[int] | None = None
    tokens: Any = None

    def epochs(
        self,
        count: int,
        seed: int,
        parts: int = 0,
        augmentation: augment.Augmentation = augment.NONE,
    ) -> grain.MapDataset:
        """Return the batches of `count` shuffled epochs.

        Args:
          count: number of epochs.
          seed: seed of the videos' order, of each video's question order and of the augmentation.
          parts: maximum number of items per video and epoch. Every epoch then draws at most
            `parts * size` of a video's questions anew. 0 takes all questions.
          augmentation: changes to the videos, drawn anew in every epoch.

        Returns:
          A dataset with one element per batch.
        """
        items = self._items(parts)

        def fetch(index: int, group: Group) -> Batch:
            # Below a shuffle, Grain's index goes on counting from epoch to epoch.
            rng = np.random.default_rng((seed, index // len(items), group.record))
            item = self._fetch(group, rng.permutation(group.questions))
            return self._augment(item, augmentation, rng)

        dataset = grain.MapDataset.source(items).map_with_index(fetch).shuffle(seed=seed)
        return self._batched(dataset).repeat(count)

    def once(self) -> grain.MapDataset:
        """Return the batches of one pass over the split, in order and without augmentation."""
        dataset = grain.MapDataset.source(self._items())
        return self._batched(dataset.map(lambda group: self._fetch(group, group.questions)))

    def _batched(self, items: grain.MapDataset) -> grain.MapDataset:
        batches = batched(items, self.videos, self.rows)
        return batches if self.tokens is None else batches.map(self.tokens.add)

    def _items(self, parts: int = 0) -> list[Group]:
        groups = group_questions(self.table, self.split, self.size)
        if not groups:
            raise StageError(f'the data set has no {self.split} question; expected at least one')
        if parts:
            groups = [group for group in groups if group.part < parts]
        return pad_to_multiple(groups, self.videos, Group(groups[0].record, (), 0))

    def _fetch(self, group: Group, order: Sequence[int]) -> Batch:
        chosen = order[group.part * self.size : (group.part + 1) * self.size]
        # Padding repeats question 0 instead of being empty: a softmax needs at least one word.
        indices = np.zeros(self.size, np.int32)
        indices[: len(chosen)] = chosen
        item = {
            **{name: array[indices] for name, array in self.table.plain._asdict().items()},
            'weights': (np.arange(self.size) < len(chosen)).astype(np.float32),
            'question': indices,
            'record': np.int32(group.record),
        }
        with track_read(group.record):
            item |= {name: np.array(array[group.record]) for name, array in self.arrays.items()}
            if self.reader is not None:
                record = self.reader[group.record]
                item |= {name: record[name] for name in RECORD_ARRAYS}
        if self.tokens is not None:
            item['segments'] = np.arange(len(item['segment_mask']), dtype=np.int32)
        return item

    def _augment(
        self, item: Batch, augmentation: augment.Augmentation, rng: np.random.Generator
    ) -> Batch:
        """Change the item at random; all items of a video change alike within an epoch."""
        if rng.random() < augmentation.mirror:
            item = self._mirror(item)
        gain_db = augmentation.gain_db * rng.uniform(-1, 1)
        if gain_db and 'log_mel' in item:
            item['log_mel'] = augment.apply_gain(item['log_mel'], gain_db)
        if rng.random() < augmentation.time_shift:
            item = self._shift(item, rng)
        return item

    def _mirror(self, item: Batch) -> Batch:
        """Mirror the item's questions, answers, boxes and frames.

        Precomputed features stay: they are averages over a frame or over a region.
        """
        encoded = self.table.mirrored._asdict()
        item = item | {name: array[item['question']] for name, array in encoded.items()}
        for name, mirror in (('boxes', augment.mirror_boxes), ('frames', augment.mirror_frames)):
            if name in item:
                item[name] = mirror(item[name])
        return item

    def _shift(self, item: Batch, rng: np.random.Generator) -> Batch:
        """Shift the item's segments in time, unless one of its questions asks about order.

        A predicted change of rhythm moves with its segment, although another segment may now
        follow it.
        """
        exists = item['segment_mask']
        offset = int(rng.integers(1, max(exists.sum(), 2)))
        questions = item['question'][item['weights'] > 0]
        if self.table.is_about_order[questions].any():
            return item
        names = [name for name in (*self.arrays, *RECORD_ARRAYS, 'segments') if name in item]
        return item | {name: augment.shift_segments(item[name], exists, offset) for name in names}


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
    """Return shuffled batches of random runs of consecutive segments, for pretraining (Sec. 3.2).

    Half of the videos are mirrored, which changes neither rhythm nor sources.

    Args:
      reader: RecordReader.
      labels: 'rhythm' (records, T) and 'sources' (records, T, 22).
      records: indices of the records to use.
      videos: V, videos per batch.
      segments: t, segments in a run.
      epochs: number of epochs; each contains every record once.
      seed: seed of the order, the runs and the mirroring.
      rows: the rows of each batch that this host reads; None for all V rows.

    Returns:
      Batches, each a dict of
        frames: (V, t, S, S, 3) uint8;
        log_mel: (V, t, F, M) dB;
        rhythm: (V, t);
        sources: (V, t, 22);
        segment_mask: (V, t) bool, True where the segment exists;
        source_weights: (V, t), 1 where the segment exists, 0 elsewhere and for padding;
        rhythm_weights: (V, t), equal to source_weights, but 0 for the run's last segment unless the
          run ends with the video: a rhythm label compares a segment with the next one (Eq. 6);
        record: (V,) index into videos.json.
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
            run['frames'] = augment.mirror_frames(run['frames'])
        return run | {'record': record}

    items = _weighted_records(records, videos)
    dataset = grain.MapDataset.source(items).random_map(fetch, seed=seed)
    return batched(dataset.shuffle(seed=seed), videos, rows).repeat(epochs)


def stored_videos(
    arrays: Mapping[str, np.ndarray],
    records: Sequence[int],
    videos: int,
    epochs: int,
    seed: int,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Return shuffled batches of stored arrays, for pretraining on features computed beforehand.

    Args:
      arrays: (records, T, ...) arrays by name; `segment_mask` (records, T) is one of them.
      records: indices of the records to use.
      videos: V, videos per batch.
      epochs: number of epochs; each contains every record once.
      seed: seed of the order.
      rows: the rows of each batch that this host reads; None for all V rows.

    Returns:
      Batches with every array (V, T, ...) under its name, record (V,), and source_weights and
      rhythm_weights (V, T), both 1 where the segment exists and 0 elsewhere and for padding.
    """

    def fetch(item: tuple[int, float]) -> Batch:
        index, weight = item
        with track_read(index):
            item = {name: np.array(array[index]) for name, array in arrays.items()}
        weights = np.float32(weight) * item['segment_mask'].astype(np.float32)
        weights = {'source_weights': weights, 'rhythm_weights': weights}
        return item | weights | {'record': np.int32(index)}

    dataset = grain.MapDataset.source(_weighted_records(records, videos)).map(fetch)
    return batched(dataset.shuffle(seed=seed), videos, rows).repeat(epochs)


def whole_videos(
    reader: Any,
    labels: Mapping[str, np.ndarray],
    records: Sequence[int],
    videos: int,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Return batches of whole videos in the order of `records`.

    Arguments and batches are those of `segment_runs`, but a batch holds all T segments and its
    rhythm_weights equal its source_weights.
    """

    def fetch(item: tuple[int, float]) -> Batch:
        whole = _read_segments(reader, labels, *item)
        return whole | {'rhythm_weights': whole['source_weights']}

    dataset = grain.MapDataset.source(_weighted_records(records, videos)).map(fetch)
    return batched(dataset, videos, rows)


def batched(
    items: grain.MapDataset, videos: int, rows: Sequence[int] | None = None
) -> grain.MapDataset:
    """Return batches of `videos` items, or only some rows of these batches.

    Hosts with different rows read different records. Together they read the same records in the
    same order, whatever their number, and the iterator's state does not depend on their number
    either.

    Args:
      items: the items; their number is a multiple of `videos`.
      videos: V, items in a whole batch.
      rows: positions in the batch that this host reads, ascending; None for all.
    """
    if rows is None or len(rows) == videos:
        return items.batch(videos)
    return grain.MapDataset.mix([items[row::videos] for row in rows]).batch(len(rows))


def iterate(dataset: grain.MapDataset) -> Iterator[Batch]:
    """Return a prefetching iterator; `get_state` and `set_state` save and restore its position."""
    return iter(dataset.to_iter_dataset(READ_OPTIONS))


def reads_in_progress() -> list[tuple[int, float]]:
    """Return the record and the elapsed seconds of every read that has not finished."""
    return [(record, time.monotonic() - start) for record, start in list(_READS.values())]


@contextlib.contextmanager
def track_read(record: int) -> Iterator[None]:
    """List the record in `reads_in_progress` while this thread reads it."""
    _READS[threading.get_ident()] = int(record), time.monotonic()
    try:
        yield
    finally:
        del _READS[threading.get_ident()]


def pad_to_multiple(items: list, size: int, filler: Any) -> list:
    """Append `filler` to the items until their number is a multiple of `size`."""
    return items + [filler] * (-len(items) % size)


def _weighted_records(records: Sequence[int], videos: int) -> list[tuple[int, float]]:
    """Give every record weight 1, and pad with the first record at weight 0."""
    items = [(int(record), 1.0) for record in records]
    return pad_to_multiple(items, videos, (int(records[0]), 0.0))


def _read_segments(
    reader: Any, labels: Mapping[str, np.ndarray], index: int, weight: float
) -> Batch:
    """Read all segments of a record, with their labels and weights."""
    with track_read(index):
        content = reader[index]
    exists = segment_mask(content)
    return {
        'frames': content['frames'],
        'log_mel': content['log_mel'],
        **{name: np.array(array[index], np.float32) for name, array in labels.items()},
        'segment_mask': exists,
        'source_weights': np.float32(weight) * exists.astype(np.float32),
        'record': np.int32(index),
    }
