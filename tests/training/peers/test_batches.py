import json

import numpy as np
import pytest

from amuse_jax.data import pipeline
from amuse_jax.errors import StageError
from amuse_jax.training.peers.batches import INPUTS, Others, PeerBatches
from tests.training import conftest as small
from tests.training.peers.conftest import peer_config


def train_records(features):
    rows = json.loads((features['prepare'] / 'questions.json').read_text())
    return {row['record'] for row in rows if row['split'] == 'train'}


def test_negative_frames_are_of_another_train_video_and_drawn_anew(features):
    config = peer_config('avst', epochs=2)
    source = PeerBatches(config, features)
    train, maps = train_records(features), source.arrays['visual']
    where = {maps[r, t].tobytes(): r for r in train for t in range(small.SEGMENTS)}
    batches = source.train()
    assert len(batches) % 2 == 0
    seen = {}
    for index in range(len(batches)):
        batch = batches[index]
        assert batch['negative'].shape == batch['visual'].shape == (4, 3, 4, 4, 512)
        for record, question, frames in zip(batch['record'], batch['question'], batch['negative']):
            others = [where[frame.tobytes()] for frame in frames]
            assert record not in others and train.issuperset(others)
            seen.setdefault((int(record), int(question[0])), []).append(tuple(others))
    assert len({other for draws in seen.values() for draw in draws for other in draw}) > 5
    assert any(len(set(draws)) > 1 for draws in seen.values())  # another draw in another epoch
    again = PeerBatches(config, features).train()[1]
    np.testing.assert_array_equal(again['negative'], batches[1]['negative'])


def test_a_video_with_two_sounds_is_never_its_own_negative():
    others = Others(np.arange(4), ('a', 'a', 'b', 'c'), 3, 0, lambda record, segment: None)
    drawn = {record for key in range(40) for record, _ in others.draw((key,), 0, 3)}
    assert drawn == {2, 3}
    with pytest.raises(StageError, match='only one video has train questions'):
        Others(np.arange(2), ('a', 'a', 'b'), 3, 0, lambda record, segment: None)


def test_every_train_question_is_in_every_epoch_with_its_own_type(features):
    source = PeerBatches(peer_config('avst', questions=1, epochs=1), features)
    batches = source.train()
    asked = [
        int(question)
        for index in range(len(batches))
        for question, weight in zip(batches[index]['question'][:, 0], batches[index]['weights'])
        if weight[0]
    ]
    expected = [i for i, q in enumerate(source.table.questions) if q.split == 'train']
    assert sorted(asked) == expected
    batch = batches[0]
    assert batch['words'].shape == (4, 1, 14)
    texts = [source.table.questions[i].text for i in batch['question'][:, 0]]
    np.testing.assert_array_equal(batch['words'][:, 0], source.tokenizer.encode(texts)[0])


def test_a_segment_gets_one_second_of_the_features_and_pstp_all_of_them(features):
    vggish = np.load(features['features'] / 'vggish.npy')
    batch = PeerBatches(peer_config('avst'), features).once('val', 4)[0]
    for record, audio in zip(batch['record'], batch['audio']):
        np.testing.assert_array_equal(audio, vggish[record, [0, 20, 40]])
    assert 'negative' not in batch  # frames of other videos change no answer
    source = PeerBatches(peer_config('pstp_released'), features)
    batch = source.once('val', 4)[0]
    words = np.load(features['features'] / 'clip_words.npy')
    texts = json.loads((features['features'] / 'questions.json').read_text())
    for video, record in enumerate(batch['record']):
        np.testing.assert_array_equal(batch['audio'][video], vggish[record])
        for slot, question in enumerate(batch['question'][video]):
            row = texts.index(source.table.questions[question].text)
            np.testing.assert_array_equal(batch['words_vectors'][video, slot], words[row])


def test_grounding_pairs_have_every_segment_once_and_maps_of_another_video(features):
    config = peer_config('avst', grounding=dict(epochs=2, batch_size=9))
    source = PeerBatches(config, features)
    pairs, train = source.pairs(), train_records(features)
    per_epoch = len(pairs) // 2
    assert per_epoch == len(train) * 3 // 9
    maps = source.arrays['visual']
    where = {maps[r, t].tobytes(): (r, t) for r in train for t in range(3)}
    for epoch in range(2):
        found = []
        for index in range(per_epoch):
            batch = pairs[epoch * per_epoch + index]
            for row in range(9):
                own = where[batch['visual'][row].tobytes()]
                other = where[batch['negative'][row].tobytes()]
                audio = source.arrays['audio'][own]
                np.testing.assert_array_equal(batch['audio'][row], audio)
                assert own[0] == batch['record'][row] != other[0]
                found.append(own)
        assert sorted(found) == sorted(where.values())


def test_frames_of_records_are_negatives_too(features, monkeypatch):
    monkeypatch.setitem(INPUTS, 'lavish', INPUTS['lavish'].__class__(
        records={'frames': 'frames'}, negative='frames'
    ))  # fmt: skip
    source = PeerBatches(peer_config('lavish'), features)
    batch = source.train()[0]
    assert batch['frames'].shape == batch['negative'].shape == (4, 3, 32, 32, 3)
    assert not set(pipeline.RECORD_ARRAYS) - {'frames'} & set(batch)
    frames = {
        source.reader[r]['frames'][t].tobytes(): r
        for r in train_records(features)
        for t in range(3)
    }
    for record, negative in zip(batch['record'], batch['negative']):
        assert record not in [frames[each.tobytes()] for each in negative]


def test_missing_rows_and_questions_are_explained(features, tmp_path):
    for name in ('vggish', 'resnet18', 'clip_frames', 'clip_words', 'clip_question'):
        array = np.load(features['features'] / f'{name}.npy')
        np.save(tmp_path / f'{name}.npy', array[1:])
    (tmp_path / 'questions.json').write_text('["Is it?"]')
    inputs = features | {'features': tmp_path}
    with pytest.raises(StageError, match='vggish has 13 rows for 14 records; run the stage feat'):
        _ = PeerBatches(peer_config('avst'), inputs).arrays
    with pytest.raises(StageError, match="lacks 'Is there a voiceover.' and 32 other questions"):
        _ = PeerBatches(peer_config('pstp_released'), inputs).question_rows
