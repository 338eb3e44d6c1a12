import collections
import dataclasses
import json

import numpy as np
import pytest

from amuse_jax.data import augment, pipeline
from amuse_jax.data.augment import Augmentation
from amuse_jax.music_avqa import vocabulary
from tests.data.small_questions import Reader, Sides, Tokenizer, question, table_of

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
    table = table_of(tmp_path, questions, Tokenizer())
    return pipeline.QuestionBatches(
        table, 'train', size=2, videos=2, arrays=arrays, reader=FilmReader()
    )


def items_of(dataset):
    """Yield every item of the dataset's batches, except padding."""
    for batch in pipeline.iterate(dataset):
        for i in np.flatnonzero(batch['weights'].any(1)):
            yield {name: array[i] for name, array in batch.items()}


def test_mirrored_items_have_mirrored_questions_and_boxes(tmp_path):
    sided = [
        dataclasses.replace(
            question(record, number, answer=answer),
            template='What is <LR> of it?', values=(side,), text=f'What is {side} of it?',
        )
        for record, number, side, answer in ((0, 1, 'left', 'left'), (1, 1, 'right', 'flute'))
    ]  # fmt: skip
    boxes = np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (2, 3, 1))
    table = table_of(tmp_path, sided, Sides())
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
