import collections
import dataclasses
import json

import grain
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from amuse_jax.data import pipeline
from amuse_jax.data.augment import Augmentation
from amuse_jax.errors import StageError
from tests.data.small_questions import Reader, Tokenizer, question, table_of

COUNTS = (1, 2, 3, 5, 7, 2)  # questions of each record


@pytest.fixture
def batches(tmp_path):
    questions = [question(r, n) for r, count in enumerate(COUNTS) for n in range(1, count + 1)]
    questions += [question(r, n, 'test') for r in (0, 1) for n in (8, 9)]
    arrays = {'levels': np.arange(len(COUNTS) * 2, dtype=np.float32).reshape(-1, 2)}
    table = table_of(tmp_path, questions, Tokenizer())
    return pipeline.QuestionBatches(table, 'train', size=2, videos=4, arrays=arrays)


def count_questions(epoch):
    """Count how often each question occurs in an epoch's batches."""
    return collections.Counter(
        int(index) for batch in epoch for index in batch['question'][batch['weights'] > 0]
    )


def test_evaluation_has_every_question_once_and_fixed_shapes(batches):
    rows = list(pipeline.iterate(batches.once()))
    expected = [i for i, q in enumerate(batches.table.questions) if q.split == 'train']
    assert count_questions(rows) == collections.Counter(expected)
    for batch in rows:
        assert batch['words'].shape == (4, 2, 2)
        assert batch['weights'].shape == batch['answers'].shape == (4, 2)
        assert batch['word_mask'].any(-1).all()  # padding has words too: a softmax needs one
        np.testing.assert_array_equal(batch['levels'][:, 0], 2 * batch['record'])


def test_questions_come_with_their_own_record(batches):
    for batch in pipeline.iterate(batches.once()):
        for video, slot in np.argwhere(batch['weights'] > 0):
            index = batch['question'][video, slot]
            assert batches.table.records[index] == batch['record'][video]
            assert batch['words'][video, slot, 1] == batches.table.plain.words[index, 1]


def test_every_epoch_is_complete_and_in_another_order(batches):
    dataset = batches.epochs(3, seed=1)
    per_epoch = len(dataset) // 3
    rows = list(pipeline.iterate(dataset))
    assert len(rows) == 3 * per_epoch
    epochs = [rows[i * per_epoch : (i + 1) * per_epoch] for i in range(3)]
    counts = [count_questions(epoch) for epoch in epochs]
    assert counts == [count_questions(batches.once())] * 3
    assert set(counts[0].values()) == {1}
    orders = [tuple(np.concatenate([b['record'] for b in epoch])) for epoch in epochs]
    assert len(set(orders)) == 3
    partners = [
        {tuple(sorted(row)) for batch in epoch for row in batch['question'].tolist()}
        for epoch in epochs
    ]
    assert partners[0] != partners[1]  # the slices of a long video's questions differ


def test_an_epoch_of_one_part_draws_a_few_questions_of_every_video(batches):
    dataset = batches.epochs(30, seed=1, parts=1)
    per_epoch = len(dataset) // 30
    rows = list(pipeline.iterate(dataset))
    epochs = [rows[i * per_epoch : (i + 1) * per_epoch] for i in range(30)]
    everything = count_questions(batches.once())
    asked = collections.Counter(int(batches.table.records[index]) for index in everything)
    for epoch in epochs:
        drawn = count_questions(epoch)
        found = collections.Counter(int(batches.table.records[index]) for index in drawn)
        assert found == {record: min(count, batches.size) for record, count in asked.items()}
        assert set(drawn.values()) == {1}
    assert set().union(*map(count_questions, epochs)) == set(everything)


def test_an_iterator_goes_on_from_its_saved_state(batches):
    dataset = batches.epochs(2, seed=5)
    iterator = pipeline.iterate(dataset)
    for _ in range(3):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    other = pipeline.iterate(dataset)
    other.set_state(state)
    for expected, found in zip(iterator, other, strict=True):
        for name in expected:
            np.testing.assert_array_equal(expected[name], found[name])


def test_the_same_seed_gives_the_same_batches(batches):
    first, second, third = (
        np.concatenate([b['question'] for b in pipeline.iterate(batches.epochs(1, seed))])
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()


def test_an_empty_split_is_named(batches):
    with pytest.raises(StageError, match='no val question'):
        dataclasses.replace(batches, split='val').once()


LABELS = {
    'rhythm': np.arange(6, dtype=np.float32).reshape(2, 3),
    'sources': np.arange(132, dtype=np.float32).reshape(2, 3, 22),
}


def test_segment_runs_keep_labels_beside_their_segments():
    dataset = pipeline.segment_runs(
        Reader(), LABELS, [0, 1], videos=3, segments=2, epochs=8, seed=0
    )
    starts, mirrored = set(), set()
    for batch in pipeline.iterate(dataset):
        assert batch['frames'].shape == (3, 2, 4, 4, 3)
        assert (batch['source_weights'].sum(-1) == 0).sum() == 1  # one of three is padding
        for i, record in enumerate(batch['record']):
            start = int(batch['rhythm'][i, 0]) - 3 * record
            whole = Reader()[record]
            np.testing.assert_array_equal(batch['log_mel'][i], whole['log_mel'][start : start + 2])
            frames = whole['frames'][start : start + 2]
            is_mirrored = (batch['frames'][i] != frames).any()
            if is_mirrored:
                frames = frames[:, :, ::-1]
            np.testing.assert_array_equal(batch['frames'][i], frames)
            starts.add(start)
            mirrored.add(bool(is_mirrored))
            if batch['source_weights'][i].any():
                exists = whole['frame_mask'][start : start + 2]
                np.testing.assert_array_equal(batch['source_weights'][i], exists)
                # The run's last rhythm label needs the next segment, unless the video ends there.
                assert batch['rhythm_weights'][i, -1] == (exists[-1] if start == 1 else 0)
    assert starts == {0, 1} and mirrored == {True, False}


def test_whole_videos_are_in_order_and_padded():
    rows = list(pipeline.iterate(pipeline.whole_videos(Reader(), LABELS, [1, 0, 1], 2)))
    assert np.concatenate([batch['record'] for batch in rows]).tolist() == [1, 0, 1, 1]
    assert rows[1]['source_weights'].tolist() == [[1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize('rows', [[(0, 1), (2, 3)], [(0, 3), (1,), (2,)], [(0, 1, 2, 3)]])
def test_hosts_divide_the_rows_of_every_batch(batches, rows):
    reads = []

    class Counting(Reader):
        def __getitem__(self, index):
            reads[-1].append(index)
            return super().__getitem__(0)

    augmentation = Augmentation(mirror=0.5)
    whole = batches.epochs(3, seed=2, augmentation=augmentation)
    shares = []
    for share in rows:
        reads.append([])
        mine = dataclasses.replace(batches, reader=Counting(), rows=share)
        shares.append(list(pipeline.iterate(mine.epochs(3, seed=2, augmentation=augmentation))))
    for index, batch in enumerate(pipeline.iterate(whole)):
        for share, found in zip(rows, shares):
            for name, array in batch.items():
                np.testing.assert_array_equal(found[index][name], array[list(share)])
    assert {len(share) for share in shares} == {len(whole)}
    assert sum(map(len, reads)) == 4 * len(whole)  # no record is read by two hosts


def test_the_iterators_state_does_not_depend_on_the_number_of_hosts(batches):
    states = []
    for rows in (None, (1,), (0, 2, 3)):
        iterator = pipeline.iterate(dataclasses.replace(batches, rows=rows).epochs(2, seed=5))
        for _ in range(3):
            next(iterator)
        states.append(iterator.get_state())
    assert states[0] == states[1] == states[2]


@hypothesis.given(
    videos=st.integers(1, 24), batches=st.integers(1, 4), epochs=st.integers(1, 3), data=st.data()
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_any_hosts_together_read_every_record_once(videos, batches, epochs, data):
    hosts = np.array(data.draw(st.lists(st.integers(0, 7), min_size=videos, max_size=videos)))
    items = grain.MapDataset.range(videos * batches).shuffle(seed=3)
    read = collections.Counter()
    for host in set(hosts):
        rows = np.flatnonzero(hosts == host).tolist()
        for batch in pipeline.iterate(pipeline.batched(items, videos, rows).repeat(epochs)):
            read.update(batch.tolist())
    assert read == {item: epochs for item in range(videos * batches)}


@hypothesis.given(
    videos=st.integers(1, 24), batches=st.integers(1, 4), epochs=st.integers(1, 3), data=st.data()
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_rows_keep_their_order(videos, batches, epochs, data):
    rows = sorted(data.draw(st.sets(st.integers(0, videos - 1), min_size=1)))
    items = grain.MapDataset.range(videos * batches).shuffle(seed=1)
    whole, mine = (pipeline.batched(items, videos, r).repeat(epochs) for r in (None, rows))
    assert len(whole) == len(mine)
    for index in range(len(whole)):
        np.testing.assert_array_equal(mine[index], whole[index][rows])
