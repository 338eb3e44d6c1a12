import json

import pytest
from absl import logging

from amuse_jax.errors import StageError
from amuse_jax.training.pretrain import held_out


def prepare(folder, videos, splits):
    """Write the tables of a prepare stage: the splits of the questions of every video."""
    rows = [
        {'record': record, 'split': split} for record, each in enumerate(splits) for split in each
    ]
    (folder / 'videos.json').write_text(json.dumps([{'video_id': name} for name in videos]))
    (folder / 'questions.json').write_text(json.dumps(rows))
    return folder


def ids(count):
    return [f'{number:08}' for number in range(count)]


def test_enough_videos_of_their_own_validate_alone(tmp_path):
    folder = prepare(tmp_path, ids(20), [['train']] * 17 + [['val']] * 2 + [['test']])
    splits = held_out.records_by_split(folder, 0.1)
    assert splits == {'train': list(range(17)), 'val': [17, 18]}


def test_a_set_that_is_split_by_question_holds_out_train_videos(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, 'info', lambda text, *args: lines.append(text % args))
    both = [['train', 'val']] * 40 + [['train']] * 60
    splits = held_out.records_by_split(prepare(tmp_path, ids(100), both), 0.05)
    assert len(splits['val']) == 5 and len(splits['train']) == 95
    assert sorted(splits['train'] + splits['val']) == list(range(100))
    assert len(lines) == 1
    assert '0 of 100 videos have validation questions and no train questions; 5 train' in lines[0]


def test_the_same_videos_are_held_out_whatever_their_order_and_number(tmp_path):
    names = ids(100)
    splits = held_out.records_by_split(prepare(tmp_path, names, [['train']] * 100), 0.05)
    first = {names[record] for record in splits['val']}
    reverse = names[::-1]
    splits = held_out.records_by_split(prepare(tmp_path, reverse, [['train']] * 100), 0.05)
    assert {reverse[record] for record in splits['val']} == first
    splits = held_out.records_by_split(prepare(tmp_path, names, [['train']] * 100), 0.1)
    assert first < {names[record] for record in splits['val']}


def test_videos_with_only_validation_questions_count(tmp_path):
    folder = prepare(tmp_path, ids(100), [['val']] * 2 + [['train', 'val']] * 98)
    splits = held_out.records_by_split(folder, 0.05)
    assert splits['val'][:2] == [0, 1] and len(splits['val']) == 5


def test_all_videos_of_a_performance_are_held_out_together(tmp_path):
    names = [f'abcdefghi{number // 5:02}{end}' for number in range(100)
             for end in (['', '_#02', '_flip', '_#02_flip', '_#03'][number % 5],)]  # fmt: skip
    splits = held_out.records_by_split(prepare(tmp_path, names, [['train']] * 100), 0.07)
    assert len(splits['val']) == 10
    held = {names[record][:11] for record in splits['val']}
    assert held.isdisjoint(names[record][:11] for record in splits['train'])


@pytest.mark.parametrize(
    ('splits', 'share', 'missing'),
    [
        ([['train']], 0.05, 'train'),
        ([['val'], ['test']], 0.05, 'train'),
        ([['train'], ['train', 'val']], 0.0, 'val'),
    ],
)
def test_a_set_without_videos_for_both_is_refused(tmp_path, splits, share, missing):
    folder = prepare(tmp_path, ids(len(splits)), splits)
    with pytest.raises(StageError, match=f'leaves no {missing} video: .*pretrain.val_share is'):
        held_out.records_by_split(folder, share)
