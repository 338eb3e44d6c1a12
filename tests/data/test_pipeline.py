import collections
import dataclasses
import json

import grain
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from amuse_jax.data import augment, pipeline, question_table
from amuse_jax.data.augment import Augmentation
from amuse_jax.errors import StageError
from amuse_jax.music_avqa import Question, vocabulary

COUNTS = (1, 2, 3, 5, 7, 2)  # questions of each record


class Tokenizer:
    """A tokenizer that encodes a question as the number at its end."""

    def encode(self, texts):
        words = np.array([[1, int(text.split()[-1])] for text in texts], np.int32)
        return words, words > 0

    def losses(self, text):
        return []


class Reader:
    """A reader of two records of three segments; in the second the third segment is missing."""

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        exists = np.arange(3) < 3 - index
        return {
            'frames': random.integers(0, 255, (3, 4, 4, 3), np.uint8),
            'log_mel': random.normal(size=(3, 5, 2)).astype(np.float16),
            'frame_mask': exists,
            'audio_mask': exists,
        }


def question(record, number, split='train', answer='yes'):
    return Question(
        question_id=f'{record}-{number}', video_id=f'v{record}', sound_id=f'v{record}', split=split,
        modality='Audio', kind='Counting', template='t', values=(), text=f'q {number}',
        answer=answer,
    )  # fmt: skip


def table_of(tmp_path, questions):
    rows = [dataclasses.asdict(q) | {'record': int(q.video_id[1:])} for q in questions]
    (tmp_path / 'questions.json').write_text(json.dumps(rows))
    return question_table.read(tmp_path, Tokenizer())


@pytest.fixture
def batches(tmp_path):
    questions = [question(r, n) for r, count in enumerate(COUNTS) for n in range(1, count + 1)]
    questions += [question(r, n, 'test') for r in (0, 1) for n in (8, 9)]
    arrays = {'levels': np.arange(len(COUNTS) * 2, dtype=np.float32).reshape(-1, 2)}
    table = table_of(tmp_path, questions)
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


def test_mirrored_items_have_mirrored_questions_and_boxes(tmp_path):
    class Words(Tokenizer):
        def encode(self, texts):
            words = np.array([[text.count('left'), text.count('right')] for text in texts])
            return words, words > 0

    sided = [
        dataclasses.replace(
            question(record, number, answer=answer),
            template='What is <LR> of it?', values=(side,), text=f'What is {side} of it?',
        )
        for record, number, side, answer in ((0, 1, 'left', 'left'), (1, 1, 'right', 'flute'))
    ]  # fmt: skip
    rows = [dataclasses.asdict(q) | {'record': int(q.video_id[1:])} for q in sided]
    (tmp_path / 'questions.json').write_text(json.dumps(rows))
    boxes = np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (2, 3, 1))
    table = question_table.read(tmp_path, Words())
    batches = pipeline.QuestionBatches(table, 'train', 1, 2, {'boxes': boxes}, Reader())
    plain = batches.once()[0]
    mirrored = batches.epochs(1, seed=0, augmentation=Augmentation(mirror=1.0))[0]
    order = [list(mirrored['record']).index(record) for record in plain['record']]
    np.testing.assert_array_equal(mirrored['words'][order], plain['words'][..., ::-1])
    names = [vocabulary.ANSWERS[i] for i in mirrored['answers'][order, 0]]
    assert names == ['right', 'flute']
    np.testing.assert_allclose(mirrored['boxes'][0, 0], [0.7, 0.2, 0.9, 0.4], atol=1e-6)
    np.testing.assert_array_equal(mirrored['frames'][order], plain['frames'][:, :, :, ::-1])
    some = batches.epochs(40, seed=0, augmentation=Augmentation(mirror=0.5))
    shares = np.mean([(some[i]['boxes'][:, 0, 0] > 0.5).mean() for i in range(len(some))])
    assert 0.3 < shares < 0.7


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


ORDER, OTHER = 'Where is the <FL> sounding instrument?', 'Is there a voiceover?'
ASKED = ((OTHER, OTHER), (OTHER, ORDER), (ORDER,), (OTHER,), (OTHER, OTHER, ORDER), (OTHER,))
EXISTING = (4, 4, 4, 3, 2, 1)  # segments of each record, of four


class FilmReader:
    """A reader whose records have four segments, all different."""

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        return {
            'frames': random.integers(0, 255, (4, 4, 4, 3), np.uint8),
            'log_mel': random.uniform(-110, 0, size=(4, 5, 2)).clip(-100).astype(np.float16),
        }


@pytest.fixture
def films(tmp_path):
    """Batches of six videos; the array `place` numbers the segments."""
    questions = [
        dataclasses.replace(question(record, number), template=template)
        for record, templates in enumerate(ASKED)
        for number, template in enumerate(templates)
    ]
    random = np.random.default_rng(0)
    arrays = {
        'segment_mask': np.arange(4) < np.array(EXISTING)[:, None],
        'place': np.tile(np.arange(4, dtype=np.float16), (len(ASKED), 1)),
        'boxes': random.random((len(ASKED), 4, 3, 4), np.float32),
        'sources': random.random((len(ASKED), 4, 22), np.float32),
    }
    table = table_of(tmp_path, questions)
    return pipeline.QuestionBatches(
        table, 'train', size=2, videos=2, arrays=arrays, reader=FilmReader()
    )


def items_of(dataset):
    """Yield every item of the dataset's batches, except padding."""
    for batch in pipeline.iterate(dataset):
        for i in np.flatnonzero(batch['weights'].any(1)):
            yield {name: array[i] for name, array in batch.items()}


def test_a_shift_in_time_moves_all_arrays_of_a_segment_together(films):
    whole = {int(item['record']): item for item in items_of(films.once())}
    found = collections.defaultdict(set)
    for item in items_of(films.epochs(30, seed=0, augmentation=Augmentation(time_shift=1.0))):
        record = int(item['record'])
        plain, count, order = whole[record], EXISTING[record], item['place'].astype(int)
        for name in ('frames', 'log_mel', 'boxes', 'sources', 'segment_mask'):
            np.testing.assert_array_equal(item[name], plain[name][order])
        np.testing.assert_array_equal(item['segment_mask'], plain['segment_mask'])
        np.testing.assert_array_equal(order[count:], np.arange(count, 4))
        np.testing.assert_array_equal(order[:count], (np.arange(count) + order[0]) % count)
        templates = {
            films.table.questions[i].template for i in item['question'][item['weights'] > 0]
        }
        found[record, ORDER in templates].add(int(order[0]))
    # Items are shifted by every possible number of places but never by none, unless a question
    # asks about order or there is only one segment.
    assert found == {
        (0, False): {1, 2, 3},
        (1, True): {0},
        (2, True): {0},
        (3, False): {1, 2},
        (4, True): {0},
        (4, False): {1},  # the items of this video without its question about order
        (5, False): {0},
    }


def test_one_bounded_gain_is_drawn_per_video(films):
    whole = {int(item['record']): item for item in items_of(films.once())}
    gains = collections.defaultdict(set)
    for item in items_of(films.epochs(20, seed=0, augmentation=Augmentation(gain_db=6.0))):
        plain = whole[int(item['record'])]
        for name in ('frames', 'place', 'boxes', 'sources'):
            np.testing.assert_array_equal(item[name], plain[name])
        assert item['log_mel'].dtype == np.float16
        before, after = (each['log_mel'].astype(np.float32) for each in (plain, item))
        assert (after[before == -100] == -100).all()
        audible = (before > -90) & (after > -90)
        gain = np.median((after - before)[audible])
        np.testing.assert_allclose((after - before)[audible], gain, atol=0.07)  # half floats
        assert abs(gain) < 6.07
        gains[int(item['record'])].add(float(gain))
    everything = np.concatenate([list(each) for each in gains.values()])
    assert everything.min() < -4 and everything.max() > 4
    assert all(len(each) > 15 for each in gains.values())  # drawn anew in every epoch
    silent = dataclasses.replace(films, reader=None)
    assert 'log_mel' not in silent.epochs(1, seed=0, augmentation=Augmentation(gain_db=6.0))[0]


@pytest.mark.parametrize('parts', [0, 1])
def test_augmented_batches_are_repeatable_and_resumable(films, parts):
    augmentation = Augmentation(mirror=0.5, gain_db=6.0, time_shift=0.5)

    def epochs(seed, augmentation):
        return films.epochs(3, seed, parts, augmentation)

    first = list(pipeline.iterate(epochs(2, augmentation)))
    iterator = pipeline.iterate(epochs(2, augmentation))
    for _ in range(4):
        next(iterator)
    resumed = pipeline.iterate(epochs(2, augmentation))
    resumed.set_state(json.loads(json.dumps(iterator.get_state())))
    for expected, *others in zip(first[4:], iterator, resumed, strict=True):
        for name in expected:
            for found in others:
                np.testing.assert_array_equal(expected[name], found[name])
    # Augmentation changes the arrays, but neither the questions nor their order.
    plain = list(pipeline.iterate(epochs(2, augment.NONE)))
    for name in ('question', 'weights', 'record'):
        np.testing.assert_array_equal([b[name] for b in first], [b[name] for b in plain])
    for name in ('boxes', 'log_mel', 'place'):
        assert not all((a[name] == b[name]).all() for a, b in zip(first, plain))
    other = list(pipeline.iterate(epochs(3, augmentation)))
    assert any((a['log_mel'] != b['log_mel']).any() for a, b in zip(first, other))
